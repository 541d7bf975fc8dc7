"""Many importance arrays at once.

Axes: M importance arrays, B batch, H heads, V visual slots, K kept slots.
"""

from __future__ import annotations

import functools

import jax

from hawk_jax import checks
from hawk_jax import scoring
from hawk_jax import selectors


@functools.partial(jax.jit, static_argnames=("keep_count", "normalization"))
def select_many(
  scores: jax.Array,
  visual_mask: jax.Array,
  counts: jax.Array,
  head_importances: jax.Array,
  *,
  keep_count: int,
  normalization: str = "l2",
) -> jax.Array:
  """Which tokens each of M importance arrays would keep, in one program.

  Args:
    scores: [B, H, V] of `scoring.head_scores`, which do not depend on importance.
    visual_mask: [B, V] bool, True on real visual tokens.
    counts: [B] int32, tokens to keep, at most `keep_count`.
    head_importances: [M, H] float32.
    keep_count: static K, at most V.
    normalization: of the scores.

  Returns:
    [M, B, K] int32 indices into V, ascending; unused slots come last and hold -1.

  Raises:
    ValueError: a keep_count or normalization that is not allowed, or weights of another number of heads.
  """
  checks.whole("keep_count", keep_count, 1, scores.shape[-1])
  scores = scoring.normalize(scores, visual_mask, normalization)
  select = lambda weights: selectors.top_k(scoring.fuse(scores, weights), visual_mask, counts, keep_count)
  return jax.vmap(select)(head_importances)
