"""How many visual tokens each prompt keeps: a fixed share or number, or as many as hold a share of its scores.

Axes: B batch, V visual slots.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from hawk_jax import checks
from hawk_jax import scoring

ROUNDINGS = {"ceil": math.ceil, "floor": math.floor}


def keep_counts(
  visual_counts: np.ndarray, *, keep_ratio: float | None = None, keep_count: int | None = None, rounding: str = "ceil"
) -> np.ndarray:
  """How many visual tokens each prompt keeps, computed on the host.

  Args:
    visual_counts: [B] whole numbers, the visual tokens of each prompt.
    keep_ratio: share to keep, in (0, 1]. At least one token is kept.
    keep_count: number to keep instead, at least 1; prompts with fewer visual tokens keep all of them.
    rounding: `ceil` (the authors' code) or `floor` (the paper) of V * keep_ratio.

  Returns:
    [B] int32. With neither keep_ratio nor keep_count, all tokens are kept.

  Raises:
    ValueError: keep_ratio and keep_count together, a value outside its range, or an unknown rounding.
  """
  visual_counts = _checked_counts(visual_counts)
  check_budget(keep_ratio, keep_count, rounding)
  if keep_count is not None:
    return np.minimum(visual_counts, np.int32(min(keep_count, checks.INT32_MAX)))
  if keep_ratio is None:
    return visual_counts
  counts = [ROUNDINGS[rounding](int(count) * float(keep_ratio)) for count in visual_counts]
  return np.minimum(visual_counts, np.maximum(counts, 1)).astype(np.int32)


def check_budget(keep_ratio, keep_count, rounding) -> None:
  """Checks the settings of `keep_counts` without prompts.

  Raises:
    ValueError: as `keep_counts`.
  """
  if keep_ratio is not None and keep_count is not None:
    given = f"keep_ratio={checks.show(keep_ratio)} and keep_count={checks.show(keep_count)}"
    raise ValueError(f"keep_ratio and keep_count: give one of them, got {given}")
  checks.choice("rounding", rounding, ROUNDINGS)
  if keep_count is not None:
    checks.whole("keep_count", keep_count, 1)
  if keep_ratio is not None:
    checks.share("keep_ratio", keep_ratio)


def mass_counts(scores: jax.Array, visual_mask: jax.Array, keep_mass: ArrayLike) -> jax.Array:
  """Adaptive budget: the fewest tokens that hold a share of each prompt's softmaxed score.

  A prompt whose score is concentrated on few tokens keeps few, one whose score is flat keeps many. Scores are standardized
  first (mean 0 and deviation 1 over the prompt's real tokens), since fused scores have no scale of their own.

  Args:
    scores: [B, V] float32 fused scores.
    visual_mask: [B, V] bool, True on real visual tokens.
    keep_mass: [] the share, in (0, 1].

  Returns:
    [B] int32, from 1 to the prompt's visual tokens; 0 for a prompt without any.
  """
  scores = scoring.bounded(scores, visual_mask)
  mean = jnp.mean(scores, axis=-1, keepdims=True, where=visual_mask)
  deviation = jnp.std(scores, axis=-1, keepdims=True, where=visual_mask)
  standard = (scores - mean) / jnp.maximum(deviation, 1e-12)
  shares = jax.nn.softmax(jnp.where(visual_mask, standard, -jnp.inf), axis=-1)
  held = jnp.cumsum(jnp.sort(jnp.where(visual_mask, shares, 0.0), axis=-1)[:, ::-1], axis=-1)
  # Rounding must not make the shares of a whole prompt sum to less than 1.
  fewer = (held < jnp.minimum(keep_mass, 1 - 1e-6)) & (jnp.arange(scores.shape[1]) < visual_mask.sum(-1)[:, None] - 1)
  return jnp.where(visual_mask.any(-1), fewer.sum(-1) + 1, 0).astype(jnp.int32)


def calibrate(
  scores: np.ndarray, visual_mask: np.ndarray, keep_ratio: float, bound_ratio: float = 1.0, steps: int = 30
) -> float:
  """The `keep_mass` with which prompts keep a given share of their tokens on average.

  Args:
    scores: [B, V] fused scores of calibration prompts.
    visual_mask: [B, V] bool.
    keep_ratio: wanted share of kept tokens, averaged over the prompts, in (0, 1].
    bound_ratio: no prompt keeps a larger share than this; at least `keep_ratio`.
    steps: how often the search interval is halved.

  Returns:
    The smallest keep_mass, to 2^-steps, whose mean share is at least `keep_ratio`.

  Raises:
    ValueError: a ratio outside its range, or no prompt with a visual token.
  """
  checks.share("keep_ratio", keep_ratio)
  checks.real("bound_ratio", bound_ratio, f"from keep_ratio, {keep_ratio}, to 1", float(keep_ratio), 1.0)
  checks.whole("steps", steps, 1)
  scores = checks.real_array("scores", scores, "numbers [batch, visual slots]")
  visual_mask = checks.mask("visual_mask", visual_mask, "True on visual tokens, [batch, visual slots]")
  if scores.ndim != 2 or visual_mask.shape != scores.shape:
    given = f"got shapes {scores.shape} and {visual_mask.shape}"
    raise ValueError(f"scores and visual_mask: {given}, must be [batch, visual slots] both")
  if not np.isfinite(scores[visual_mask]).all():
    raise ValueError("scores: some visual tokens have scores that are not finite")
  rows = visual_mask.any(axis=1)
  if not rows.any():
    raise ValueError("visual_mask: no prompt has a visual token")
  scores, visual_mask = scores[rows], visual_mask[rows]
  counts, total = jax.jit(mass_counts), visual_mask.sum(axis=1)
  bound = np.ceil(total * bound_ratio)
  low, high = 0.0, 1.0
  for _ in range(steps):
    middle = (low + high) / 2
    share = np.mean(np.minimum(counts(scores, visual_mask, middle), bound) / total)
    low, high = (low, middle) if share >= keep_ratio else (middle, high)
  return high


def _checked_counts(visual_counts) -> np.ndarray:
  counts = checks.whole_array("visual_counts", visual_counts, "whole numbers [batch]")
  if counts.ndim != 1:
    raise ValueError(f"visual_counts: got {counts.dtype} of shape {counts.shape}, must be whole numbers [batch]")
  if counts.size and not 0 <= int(counts.min()) <= int(counts.max()) <= checks.INT32_MAX:
    raise ValueError(f"visual_counts: from {counts.min()} to {counts.max()}, must be from 0 to {checks.INT32_MAX}")
  return counts.astype(np.int32)
