"""Rotary position embedding over one or several position axes, in float32.

Axes: T tokens, A position axes, F rotary frequencies (half the head dim), N heads, d head dim.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from models import cpu


@dataclasses.dataclass(frozen=True)
class Frequencies:
  """Which frequency turns with which position axis.

  Attributes:
    values: F angular frequencies, in radians per position.
    axes: F indices into the position axes.
  """

  values: tuple[float, ...]
  axes: tuple[int, ...]


def text_frequencies(head_dim: int, theta: float, sections: tuple[int, ...] = (), interleaved: bool = False) -> Frequencies:
  """theta^(-2i/d), divided among the position axes, in contiguous sections or interleaved.

  Args:
    head_dim: d.
    theta: base wavelength.
    sections: number of frequencies of each position axis, summing to d/2 (mRoPE of Qwen2.5-VL: 16, 24, 24); none: one axis.
    interleaved: for three axes: frequency i turns with axis i % 3 as long as that axis has frequencies left (i < 3 * its
      section), else with axis 0 (mRoPE of Qwen3-VL).
  """
  values = theta ** (-np.arange(0, head_dim, 2, dtype=np.float64) / head_dim)
  numbers = np.arange(head_dim // 2)
  if interleaved:
    axes = np.where(numbers < 3 * np.asarray(sections)[numbers % 3], numbers % 3, 0)
  else:
    axes = np.repeat(np.arange(len(sections)), sections) if sections else np.zeros_like(numbers)
  return Frequencies(tuple(values.tolist()), tuple(axes.tolist()))


def grid_frequencies(head_dim: int, theta: float = 10_000.0) -> Frequencies:
  """2-D rotary of a vision tower: the first half of the frequencies turns with the row, the second with the column."""
  values = theta ** (-np.arange(0, head_dim // 2, 2, dtype=np.float64) / (head_dim // 2))
  return Frequencies(tuple(np.tile(values, 2).tolist()), (0,) * len(values) + (1,) * len(values))


def rotation(positions: jax.Array, frequencies: Frequencies) -> tuple[jax.Array, jax.Array]:
  """Cosine and sine of every token's angles.

  Args:
    positions: [..., T, A] integers.
    frequencies: F frequencies over A axes.

  Returns:
    Two [..., T, F] float32 arrays. They are float32 for every model dtype, since in
    bfloat16 the positions 4,095 and 4,096 are the same number.
  """
  axes = positions[..., np.asarray(frequencies.axes)].astype(jnp.float32)
  angles = axes * jnp.asarray(frequencies.values, jnp.float32)
  cos, sin = cpu.kept((jnp.cos, jnp.sin), angles)
  return cos, sin


def rotate(x: jax.Array, cos: jax.Array, sin: jax.Array) -> jax.Array:
  """Turns the pairs (x[i], x[i + d/2]) of every head.

  Args:
    x: [..., T, N, d].
    cos: [..., T, d/2].
    sin: [..., T, d/2].

  Returns:
    [..., T, N, d] in x's dtype.
  """
  first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[..., None, :], sin[..., None, :]
  return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
