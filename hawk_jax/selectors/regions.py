"""Rules that look only at where tokens are: evenly spaced tokens, and the average of each region.

`Prompt.visual_curve` numbers the tokens of a prompt along a curve that finishes one block of a picture after the other, so
that an equal part of the curve is a compact region, for any number of parts.

Axes: B batch, V visual slots, K kept slots.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hawk_jax.selectors import ranking


def regions(curve: jax.Array, mask: jax.Array, counts: jax.Array) -> jax.Array:
  """Divides each row's tokens into parts of the curve of equal length, up to one token.

  Args:
    curve: [B, V] int32 of `Prompt.visual_curve`.
    mask: [B, V] bool, the tokens to divide.
    counts: [B] int32, parts.

  Returns:
    [B, V] int32 number of each token's part; those of other tokens have no meaning.
  """
  total = mask.sum(-1, keepdims=True)
  return _rank(curve, mask) * jnp.minimum(counts[:, None], total) // jnp.maximum(total, 1)


def grid(features, scores, visual_mask, counts, seeds, *, keep_count, curve):
  """Evenly spaced tokens: the middle one of each of `counts` regions."""
  del features, scores, seeds
  return ranking.in_order(_middles(curve, visual_mask, counts, keep_count), visual_mask, counts)


def pool(features, scores, visual_mask, counts, seeds, *, keep_count, curve, kept):
  """Average pooling: every token joins the token of `grid` in its region."""
  del features, scores, seeds, kept
  joined = jnp.minimum(regions(curve, visual_mask, counts), keep_count - 1)
  target = jnp.take_along_axis(_middles(curve, visual_mask, counts, keep_count), joined, axis=1)
  return jnp.where(visual_mask & (counts > 0)[:, None], target, -1)


def _middles(curve, mask, counts, keep_count):
  """[B, K] the token in the middle of each region."""
  total = mask.sum(-1, keepdims=True)
  counts = jnp.maximum(jnp.minimum(counts[:, None], total), 1)
  start = lambda number: -(-number * total // counts)
  number = jnp.arange(keep_count)
  middle = (start(number) + start(number + 1) - 1) // 2
  return jnp.take_along_axis(_along(curve, mask), jnp.clip(middle, 0, mask.shape[1] - 1), axis=1)


def _along(curve, mask):
  """[B, V] int32, the row's tokens in the order of the curve."""
  return jnp.argsort(jnp.where(mask, curve, mask.shape[1]), axis=1).astype(jnp.int32)


def _rank(curve, mask):
  """[B, V] each token's place in `_along`."""
  return jnp.argsort(_along(curve, mask), axis=1).astype(jnp.int32)
