"""Merging instead of dropping: what becomes of the tokens that a rule does not keep.

A merge is [B, V] int32, for each token the kept token that it joins (a kept token joins itself), or -1 for one that is
dropped. The embedding of a kept token becomes the mean of all that joined it.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hawk_jax.selectors import greedy
from hawk_jax.selectors import ranking

MERGES = ("none", "nearest")
# VisionZip keeps so many tokens of each 64 as centers for merging.
_CONTEXTUAL = 10 / 64


def nearest(features: jax.Array, mask: jax.Array, centers: jax.Array) -> jax.Array:
  """Joins every token to the kept token of the largest cosine.

  Args:
    features: [B, V, D].
    mask: [B, V] bool, the tokens that join.
    centers: [B, K] int32, the kept tokens that others may join, -1 in unused slots.

  Returns:
    [B, V] int32, -1 where a row has no center, and on tokens outside the mask. Of equal cosines, the first center counts.
  """

  def row(features, mask, centers):
    normed = greedy.unit(jnp.where(mask[:, None], features, 0))
    with jax.default_matmul_precision("highest"):
      cosines = normed @ normed[centers].T
    at = jax.vmap(greedy.best)(jnp.where(centers >= 0, cosines, -jnp.inf))
    joined = jnp.where(mask & (centers >= 0).any(), centers[at], -1)
    return joined.at[jnp.where(centers >= 0, centers, len(mask))].set(centers, mode="drop")

  return jax.lax.map(lambda args: row(*args), (features, mask, centers))


def average(features: jax.Array, merge: jax.Array, kept: jax.Array) -> jax.Array:
  """The embeddings of the kept tokens: the mean of all that joined each of them, in float32.

  Args:
    features: [B, V, D].
    merge: [B, V] int32.
    kept: [B, K] int32, -1 in unused slots.

  Returns:
    [B, K, D] in the dtype of the features; 0 in unused slots.
  """

  def row(features, merge, kept):
    joined = ((merge == kept[:, None]) & (kept >= 0)[:, None]).astype(jnp.float32)
    with jax.default_matmul_precision("highest"):
      total = joined @ jnp.where((merge >= 0)[:, None], features, 0).astype(jnp.float32)
    return total / jnp.maximum(joined.sum(axis=1, keepdims=True), 1.0)

  return jax.lax.map(lambda args: row(*args), (features, merge, kept)).astype(features.dtype)


def visionzip(features, scores, visual_mask, counts, seeds, *, keep_count):
  """VisionZip (CVPR 2025): dominant tokens by attention in the vision tower, and evenly spaced ones of the rest.

  10 of 64 tokens kept are such contextual tokens, with which the others are merged. The authors also keep the class token.
  """
  del features, seeds
  dominant, contextual = _visionzip(scores, visual_mask, counts, keep_count)
  return ranking.top_k((dominant | contextual).astype(jnp.float32), visual_mask, counts, keep_count)


def visionzip_merge(features, scores, visual_mask, counts, seeds, *, keep_count, kept):
  """Every token that VisionZip does not keep joins the contextual token of the largest cosine.

  The authors compare keys of the vision tower's last layer but one; here the projected features are compared.
  """
  del seeds, kept
  dominant, contextual = _visionzip(scores, visual_mask, counts, keep_count)
  centers = ranking.top_k(contextual.astype(jnp.float32), visual_mask, contextual.sum(-1), keep_count)
  return jnp.where(dominant, jnp.arange(visual_mask.shape[1]), nearest(features, visual_mask & ~dominant, centers))


def _visionzip(scores, mask, counts, keep_count):
  """[B, V] bool, the dominant and the contextual tokens."""
  counts = jnp.minimum(counts, mask.sum(-1))
  number = jnp.minimum(jnp.maximum(jnp.round(counts * _CONTEXTUAL).astype(jnp.int32), 1), counts)
  dominant = members(ranking.top_k(scores, mask, counts - number, keep_count), mask.shape[1])
  rest = mask & ~dominant
  step = jnp.maximum(rest.sum(-1) // jnp.maximum(number, 1), 1)[:, None]
  place = jnp.cumsum(rest, axis=1) - 1
  return dominant, rest & (place % step == 0) & (place < step * number[:, None])


def members(kept: jax.Array, slots: int) -> jax.Array:
  """[B, V] bool, True on the tokens of [B, K] indices; -1 stands for none.

  Args:
    kept: [B, K] int32.
    slots: V.
  """
  return jax.vmap(lambda row: jnp.zeros(slots, bool).at[jnp.where(row >= 0, row, slots)].set(True, mode="drop"))(kept)
