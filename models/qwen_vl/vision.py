"""What the towers share: patches in rows, and attention within temporal slices, which gathers each slice from the rows.

Axes: R rows, W merged tokens per row, U patches per merged token (2 x 2), P = W * U patches of a row, I temporal slices, L
merged tokens per slice, N heads, d head dim, D hidden size.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from einops import rearrange
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax.buckets import bucket
from models import rope
from models import sharding
from models.attention import attention
from models.cpu import dot_general
from models.qwen_vl.config import VisionConfig

# Rungs per octave of the number of rows: more than of other sizes, since all of the tower's products grow with it.
ROW_STEPS = 16
_HEADS = ("tensor", "fsdp", "data")  # mesh axes that attention within slices splits its heads over


def plan_slices(slices: Sequence[np.ndarray], slot_of_token: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Where the slots of each temporal slice are, padded to buckets.

  Args:
    slices: the merged tokens of each slice; every token is in one of them.
    slot_of_token: [tokens] int32, the token's slot in the rows (r * W + w).

  Returns:
    [I, L] int32, the slots of each slice, padding last, -1; and [tokens] int32, the token's index in the flattened slices
    (i * L + l).
  """
  length = bucket(max(map(len, slices)))
  slots = np.full([bucket(len(slices), minimum=1), length], -1, np.int32)
  places = np.zeros(len(slot_of_token), np.int32)
  for number, members in enumerate(slices):
    slots[number, : len(members)] = slot_of_token[members]
    places[members] = number * length + np.arange(len(members))
  return slots, places


def _around(y):
  """[R, P, ..] to [R, 3 * P, ..], every row between its neighbours; beyond the first and the last row is -2."""
  padded = jnp.pad(y, ((1, 1),) + ((0, 0),) * (y.ndim - 1), constant_values=-2)
  return jnp.concatenate([padded[:-2], y, padded[2:]], axis=1)


class VisionAttention(nn.Module):
  """Self-attention of patches, within whole temporal slices or within windows."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    # Query, key and value have an axis of their own, so that heads can be split over devices.
    self.qkv = nn.DenseGeneral((3, self.config.hidden_size), dot_general=dot_general)
    self.proj = nn.Dense(self.config.hidden_size, dot_general=dot_general)

  def __call__(self, x, rotation, layout, in_windows=False):
    """Attends.

    Args:
      x: [R, W * U, D].
      rotation: cosine and sine, [R, W * U, d/2] each.
      layout: of the rows; what is left of a window that is spread is in one row, or in two that follow each other.
      in_windows: whether attention is within windows rather than within slices.

    Returns:
      [R, W * U, D].
    """
    unit = self.config.merge_unit
    query, key, value = self._split(x, rotation)
    if in_windows:
      ids = jnp.repeat(layout.window_ids, unit, axis=1)
      near = _around if layout.spread else lambda y: y
      mask = ids[:, :, None] == near(ids)[:, None, :]
      out = attention(query, near(key), near(value), mask=mask, mesh=self.mesh)
    else:
      slices, lengths = self._in_slices(layout.slice_slots)
      out = attention(slices(query), slices(key), slices(value), lengths=lengths, mesh=self.mesh, heads=_HEADS)
      out = rearrange(out, "I (L U) N d -> (I L) U N d", U=unit)[layout.slot_places.reshape(-1)]
      out = self._by_head(out.reshape(query.shape))
    return self.proj(rearrange(sharding.heads(out, self.mesh), "R P N d -> R P (N d)"))

  def received(self, x, rotation, layout):
    """[R * W] float32 attention that each merged token receives in its temporal slice: mean over heads and patches.

    The arguments are those of a call. Some patches look at a time.
    """
    slices, lengths = self._in_slices(layout.slice_slots)
    query, key = (slices(y).astype(jnp.float32) for y in self._split(x, rotation)[:2])
    real = jnp.arange(query.shape[1]) < lengths[:, None]
    blocks = lambda y: rearrange(y, "I (b q) ... -> b I q ...", q=math.gcd(256, y.shape[1]))

    def look(total, block):
      query, here = block
      logits = jnp.einsum("IQNd,IPNd->INQP", query, key) / query.shape[-1] ** 0.5
      weights = jax.nn.softmax(jnp.where(real[:, None, None], logits, -jnp.inf), axis=-1)
      return total + jnp.einsum("INQP,IQ->IP", jnp.where(real[:, None, None], weights, 0.0), here), None

    total, _ = jax.lax.scan(look, jnp.zeros(real.shape), (blocks(query), blocks(real.astype(jnp.float32))))
    merged = rearrange(total, "I (L U) -> I L U", U=self.config.merge_unit).mean(axis=-1)
    mean = merged / jnp.maximum(lengths * self.config.num_heads, 1)[:, None]
    return mean.reshape(-1)[layout.slot_places.reshape(-1)]

  def _split(self, x, rotation):
    """Queries and keys, turned, and values, [R, W * U, N, d] each."""
    split = rearrange(self.qkv(x), "R P three (N d) -> three R P N d", N=self.config.num_heads)
    query, key, value = (sharding.heads(y, self.mesh) for y in split)
    return rope.rotate(query, *rotation), rope.rotate(key, *rotation), value

  def _by_head(self, y):
    # Slices gather patches from all rows, so heads are split instead: every device has all patches of its heads.
    return sharding.constrain(y, self.mesh, None, None, _HEADS)

  def _in_slices(self, slice_slots):
    """A function from [R, W * U, N, d] to [I, L * U, N, d], and [I] patches of each slice."""
    unit = self.config.merge_unit
    by_slot = lambda y: rearrange(y, "R (W U) N d -> (R W) U N d", U=unit)
    slices = lambda y: rearrange(by_slot(self._by_head(y))[slice_slots], "I L U N d -> I (L U) N d")
    return slices, (slice_slots >= 0).sum(-1) * unit


class PatchEmbed(nn.Module):
  """Linear embedding of patches; the checkpoints' Conv3d with stride = kernel."""

  config: VisionConfig
  use_bias: bool = False

  def setup(self):
    self.proj = nn.Dense(self.config.hidden_size, use_bias=self.use_bias, dot_general=dot_general)

  def __call__(self, patches):
    """[..., C] pixels to [..., D], in the parameters' dtype."""
    dtype = jnp.float32 if self.is_initializing() else self.proj.variables["params"]["kernel"].dtype
    return self.proj(patches.astype(dtype))
