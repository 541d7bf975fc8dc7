"""Adaptive budgets: how many visual tokens a sample keeps follows from its own scores.

A sample whose score is concentrated keeps few tokens, one whose score is flat keeps many: the fewest whose share of the
softmaxed score reaches tau. Scores are standardized first (mean 0, deviation 1 over the sample's real tokens), since fused
scores have no scale of their own. The static bound K of the selection stays.

Axes: B batch, V visual slots.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


def mass_counts(scores: jax.Array, visual_mask: jax.Array, keep_mass: jax.Array) -> jax.Array:
  """Fewest tokens that hold a share of each row's softmaxed score.

  Args:
    scores: [B, V] float32 fused scores.
    visual_mask: [B, V] bool, True on real visual tokens.
    keep_mass: [] tau, in (0, 1].

  Returns:
    [B] int32, from 1 to the row's tokens; 0 for a row without any.
  """
  mean = jnp.mean(scores, axis=-1, keepdims=True, where=visual_mask)
  deviation = jnp.std(scores, axis=-1, keepdims=True, where=visual_mask)
  standard = (scores - mean) / jnp.maximum(deviation, 1e-12)
  shares = jax.nn.softmax(jnp.where(visual_mask, standard, -jnp.inf), axis=-1)
  held = jnp.cumsum(jnp.sort(jnp.where(visual_mask, shares, 0.0), axis=-1)[:, ::-1], axis=-1)
  # Rounding must not make the whole of a row less than 1.
  fewer = (held < jnp.minimum(keep_mass, 1 - 1e-6)) & (jnp.arange(scores.shape[1]) < visual_mask.sum(-1)[:, None] - 1)
  return jnp.where(visual_mask.any(-1), fewer.sum(-1) + 1, 0).astype(jnp.int32)


def calibrate(scores: np.ndarray, visual_mask: np.ndarray, keep_ratio: float, bound_ratio: float = 1.0,
              steps: int = 30) -> float:
  """Tau with which samples keep a share of their tokens on average.

  Args:
    scores: [B, V] fused scores of calibration samples.
    visual_mask: [B, V] bool.
    keep_ratio: wanted mean over samples of kept tokens over tokens, in (0, 1].
    bound_ratio: no sample keeps a larger share than this, at least `keep_ratio`.
    steps: halvings of the interval.

  Returns:
    The least tau, to 2^-steps, whose mean share is at least `keep_ratio`.

  Raises:
    ValueError: a ratio outside its range, or no sample with a visual token.
  """
  if not 0.0 < keep_ratio <= 1.0:
    raise ValueError(f"keep_ratio: got {keep_ratio}, must be in (0, 1]")
  if not keep_ratio <= bound_ratio <= 1.0:
    raise ValueError(f"bound_ratio: got {bound_ratio}, must be from keep_ratio, {keep_ratio}, to 1")
  visual_mask = np.asarray(visual_mask)
  rows = visual_mask.any(axis=1)
  if not rows.any():
    raise ValueError("visual_mask: no sample has a visual token")
  scores, visual_mask = np.asarray(scores)[rows], visual_mask[rows]
  counts, total = jax.jit(mass_counts), visual_mask.sum(axis=1)
  bound = np.ceil(total * bound_ratio)
  low, high = 0.0, 1.0
  for _ in range(steps):
    middle = (low + high) / 2
    share = np.mean(np.minimum(counts(scores, visual_mask, middle), bound) / total)
    low, high = (low, middle) if share >= keep_ratio else (middle, high)
  return high
