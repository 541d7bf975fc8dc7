"""Which visual tokens stay: a static bound on how many, and the real number as data.

Axes: B batch, V visual slots, K kept slots.
"""

from __future__ import annotations

import math
import numbers

import jax
import jax.numpy as jnp
import numpy as np

ROUNDINGS = {"ceil": math.ceil, "floor": math.floor}


def keep_counts(visual_counts: np.ndarray, *, keep_ratio: float | None = None, keep_count: int | None = None,
                rounding: str = "ceil") -> np.ndarray:
  """How many visual tokens each prompt keeps (METHOD section 4). Runs on the host.

  Args:
    visual_counts: [B] visual tokens of each prompt.
    keep_ratio: share to keep, in (0, 1]. At least one token stays.
    keep_count: number to keep instead, at least 1; prompts with fewer keep all.
    rounding: `ceil` (the authors' code) or `floor` (the paper) of V * keep_ratio.

  Returns:
    [B] int32. With neither keep_ratio nor keep_count, all tokens are kept.

  Raises:
    ValueError: both given, or one outside its range, or an unknown rounding.
  """
  visual_counts = np.asarray(visual_counts, np.int32)
  if keep_ratio is not None and keep_count is not None:
    raise ValueError(f"keep_ratio and keep_count: give one of them, got keep_ratio={keep_ratio} and "
                     f"keep_count={keep_count}")
  if rounding not in ROUNDINGS:
    raise ValueError(f"rounding: got {rounding!r}, allowed are {', '.join(ROUNDINGS)}")
  if keep_count is not None:
    if isinstance(keep_count, bool) or not isinstance(keep_count, numbers.Integral) or keep_count < 1:
      raise ValueError(f"keep_count: got {keep_count!r}, must be a whole number of at least 1")
    return np.minimum(visual_counts, np.int32(min(keep_count, np.iinfo(np.int32).max)))
  if keep_ratio is None:
    return visual_counts
  if isinstance(keep_ratio, bool) or not isinstance(keep_ratio, numbers.Real) or not 0.0 < keep_ratio <= 1.0:
    raise ValueError(f"keep_ratio: got {keep_ratio!r}, must be in (0, 1]")
  counts = [ROUNDINGS[rounding](int(count) * float(keep_ratio)) for count in visual_counts]
  return np.minimum(visual_counts, np.maximum(counts, 1)).astype(np.int32)


def top_k(scores: jax.Array, visual_mask: jax.Array, counts: jax.Array, keep_count: int) -> jax.Array:
  """Keeps each row's best-scored visual tokens (equation 7); ties go to the lower index.

  Args:
    scores: [B, V] float32.
    visual_mask: [B, V] bool, True on real visual tokens.
    counts: [B] int32, tokens really kept, at most `keep_count`.
    keep_count: static K, at most V.

  Returns:
    [B, K] int32 indices into V, ascending; unused slots come last and hold -1.
  """
  scores = jnp.where(scores == 0, 0.0, scores)  # top_k ranks 0.0 above -0.0, which would break a tie
  _, index = jax.lax.top_k(jnp.where(visual_mask, scores, -jnp.inf), keep_count)
  return in_order(index, visual_mask, counts)


def in_order(picks: jax.Array, visual_mask: jax.Array, counts: jax.Array) -> jax.Array:
  """The first of each row's picks, ascending.

  Args:
    picks: [B, K] int32 indices into V, best first.
    visual_mask: [B, V] bool, True on real visual tokens.
    counts: [B] int32, tokens really kept.

  Returns:
    [B, K] int32; unused slots come last and hold -1.
  """
  used = jnp.arange(picks.shape[1]) < jnp.minimum(counts, visual_mask.sum(-1))[:, None]
  # As unsigned, -1 is the largest, so unused slots sort last.
  kept = jnp.where(used, picks, -1).astype(jnp.uint32)
  return jnp.sort(kept, axis=-1).astype(jnp.int32)
