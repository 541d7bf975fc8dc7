"""What can be put before every rule: a filter for sinks, and a floor for regions.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hawk_jax.selectors import merging
from hawk_jax.selectors import ranking
from hawk_jax.selectors import regions as regions_lib


def sinks(features: jax.Array, visual_mask: jax.Array, share: float) -> jax.Array:
  """The tokens with the largest norms (SinkPruner, arXiv 2609.01004), which attract attention but show nothing.

  Args:
    features: [B, V, D].
    visual_mask: [B, V] bool, True on real visual tokens.
    share: of each row's tokens, rounded up.

  Returns:
    [B, V] bool.
  """
  norms = jnp.linalg.norm(jnp.where(visual_mask[..., None], features, 0).astype(jnp.float32), axis=-1)
  number = jnp.ceil(visual_mask.sum(-1) * share - 1e-6).astype(jnp.int32)
  slots = visual_mask.shape[1]
  return merging.members(ranking.top_k(norms, visual_mask, number, slots), slots)


def region_floor(
  scores: jax.Array, mask: jax.Array, counts: jax.Array, share: float, *, keep_count: int, curve: jax.Array
) -> jax.Array:
  """The best token of each region (S2Prune), so that no region of a picture is without any.

  Args:
    scores: [B, V] float32.
    mask: [B, V] bool, the tokens that may be kept.
    counts: [B] int32, tokens that each row keeps.
    share: of `counts` that is spent on regions, rounded down; as many regions as tokens.
    keep_count: static K.
    curve: [B, V] int32 of `Prompt.visual_curve`.

  Returns:
    [B, V] bool.
  """
  number = jnp.floor(jnp.minimum(counts, mask.sum(-1)) * share + 1e-4).astype(jnp.int32)
  region = regions_lib.regions(curve, mask, number)
  slots = mask.shape[1]

  def row(scores, mask, region, number):
    scores = jnp.where(scores == 0, 0.0, scores)
    high = jax.ops.segment_max(jnp.where(mask, scores, -jnp.inf), region, keep_count)
    is_best = mask & (scores == high[region])
    first = jax.ops.segment_min(jnp.where(is_best, jnp.arange(slots), slots), region, keep_count)
    first = jnp.where(jnp.arange(keep_count) < number, first, slots)
    return jnp.zeros(slots, bool).at[first].set(True, mode="drop")

  return jax.vmap(row)(scores, mask, region, number)
