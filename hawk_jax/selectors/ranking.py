"""Rules that rank: every token gets a number, and those with the largest are kept.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def top_k(scores: jax.Array, visual_mask: jax.Array, counts: jax.Array, keep_count: int) -> jax.Array:
  """Keeps each row's best-scored visual tokens (Equation 7); ties go to the lower index.

  Args:
    scores: [B, V] float32.
    visual_mask: [B, V] bool, True on real visual tokens.
    counts: [B] int32, tokens to keep, at most `keep_count`.
    keep_count: static K, at most V.

  Returns:
    [B, K] int32 indices into V, ascending; unused slots come last and hold -1.
  """
  # No real token may rank as low as padding; and top_k ranks 0.0 above -0.0, which would break a tie.
  scores = jnp.nan_to_num(jnp.where(scores == 0, 0.0, scores))
  _, index = jax.lax.top_k(jnp.where(visual_mask, scores, -jnp.inf), keep_count)
  return in_order(index, visual_mask, counts)


def in_order(picks: jax.Array, visual_mask: jax.Array, counts: jax.Array) -> jax.Array:
  """The first `counts` picks of each row, in ascending order.

  Args:
    picks: [B, K] int32 indices into V, best first.
    visual_mask: [B, V] bool, True on real visual tokens.
    counts: [B] int32, tokens to keep.

  Returns:
    [B, K] int32; unused slots come last and hold -1.
  """
  used = jnp.arange(picks.shape[1]) < jnp.minimum(counts, visual_mask.sum(-1))[:, None]
  # As unsigned, -1 is the largest, so unused slots sort last.
  kept = jnp.where(used, picks, -1).astype(jnp.uint32)
  return jnp.sort(kept, axis=-1).astype(jnp.int32)


def hawk(features, scores, visual_mask, counts, seeds, *, keep_count):
  """The tokens with the highest fused scores (HAWK, Equation 7)."""
  del features, seeds
  return top_k(scores, visual_mask, counts, keep_count)


def random(features, scores, visual_mask, counts, seeds, *, keep_count):
  """Tokens drawn uniformly without replacement, with the row's seed."""
  del features
  draw = lambda seed: jax.random.uniform(jax.random.key(seed), scores.shape[1:])
  return top_k(jax.vmap(draw)(seeds), visual_mask, counts, keep_count)


def evs(features, scores, visual_mask, counts, seeds, *, keep_count, places):
  """EVS, for videos: keeps the tokens that differ most, by 1 - cosine, from the token at the same place one frame earlier.

  Tokens of the first frame rank highest. A picture is a video of one frame.
  """
  del seeds
  features = features.astype(jnp.float32)
  unit = features / jnp.maximum(jnp.sqrt(jnp.sum(features * features, axis=-1, keepdims=True)), 1e-12)

  def row(unit, places, mask):
    # The sort is stable, so the tokens of a place are in the order of time.
    order = jnp.lexsort((places, ~mask))
    same = (places[order[1:]] == places[order[:-1]]) & mask[order[1:]]
    with jax.default_matmul_precision("highest"):
      change = 1 - jnp.einsum("VD,VD->V", unit[order[1:]], unit[order[:-1]])
    return jnp.full(len(mask), jnp.inf).at[order[1:]].set(jnp.where(same, change, jnp.inf))

  return top_k(jax.vmap(row)(unit, places, visual_mask), visual_mask, counts, keep_count)


def scaled(values: jax.Array, mask: jax.Array) -> jax.Array:
  """Min-max over the real tokens of each row, 0 on padding."""
  low = jnp.min(values, axis=-1, keepdims=True, initial=jnp.inf, where=mask)
  high = jnp.max(values, axis=-1, keepdims=True, initial=-jnp.inf, where=mask)
  return jnp.where(mask, (values - low) / jnp.maximum(high - low, jnp.finfo(jnp.float32).eps), 0.0)


def qaprune(features, scores, visual_mask, counts, seeds, *, keep_count, balance=0.5, group=128, bits=4):
  """QAPruner (arXiv 2604.02816) with HAWK's score: favours tokens that low-bit weights and activations would damage most.

  balance * scaled score + (1 - balance) * sensitivity. Sensitivity is the mean of two terms, each computed in groups of 128
  channels, averaged over the groups and min-max scaled over the row's tokens: the range of a token's values, and their mean
  squared error after rounding to 16 levels between the group's smallest and largest value.
  """
  del seeds
  features = features.astype(jnp.float32)
  groups = jnp.pad(features, ((0, 0), (0, 0), (0, -features.shape[-1] % group)), mode="edge")
  groups = groups.reshape(*features.shape[:2], -1, group)
  low = groups.min(axis=-1, keepdims=True)
  spread = groups.max(axis=-1, keepdims=True) - low
  step = jnp.maximum(spread / (2**bits - 1), 1e-12)
  error = jnp.mean((groups - (low + jnp.round((groups - low) / step) * step)) ** 2, axis=-1)
  sensitivity = (scaled(error.mean(-1), visual_mask) + scaled(spread[..., 0].mean(-1), visual_mask)) / 2
  return top_k(balance * scaled(scores, visual_mask) + (1 - balance) * sensitivity, visual_mask, counts, keep_count)
