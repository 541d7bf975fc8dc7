"""What rules share that pick one token after the other.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from hawk_jax.selectors import ranking

# Values that differ by rounding count as equal, so that ties go to the lower index on every machine.
_TIE = 2e-6
# Cosines that are held at once, 256 MiB: batches with more are computed in parts.
_MOST_COSINES = 1 << 26

_State = TypeVar("_State")


def rule(pick_row: Callable[..., jax.Array], scale: bool = True) -> Callable[..., jax.Array]:
  """The pick of a selector from a rule for one row.

  Args:
    pick_row: function (cosines, relevance, mask, **needed, keep_count) -> [K] picks, best first; cosines [V, V] are those
      between features, which are 0 on padding; relevance [V] is the score, 0 on padding.
    scale: whether relevance is scaled to the range from 0 to 1 over the real tokens.
  """

  def pick(features, scores, visual_mask, counts, seeds, *, keep_count, **needed):
    del seeds
    relevance = ranking.scaled(scores, visual_mask) if scale else jnp.where(visual_mask, scores, 0.0)

    def row(features, relevance, mask, needed):
      with jax.default_matmul_precision("highest"):
        normed = unit(jnp.where(mask[:, None], features, 0))
        return pick_row(normed @ normed.T, relevance, mask, **needed, keep_count=keep_count)

    args = (features, relevance, visual_mask, needed)
    at_once = max(1, _MOST_COSINES // max(1, math.prod(visual_mask.shape[1:] * 2)))
    if len(features) <= at_once:
      picks = jax.vmap(row)(*args)
    else:
      picks = jax.lax.map(lambda args: row(*args), args, batch_size=at_once)
    return ranking.in_order(picks, visual_mask, counts)

  return functools.update_wrapper(pick, pick_row, assigned=("__doc__", "__module__", "__name__"), updated=())


def unit(features: jax.Array) -> jax.Array:
  """[..., D] float32 of length 1, or 0."""
  features = features.astype(jnp.float32)
  return features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def search(
  keep_count: int,
  mask: jax.Array,
  state: _State,
  value: Callable[[_State, jax.Array, jax.Array], jax.Array],
  update: Callable[[_State, jax.Array, jax.Array], _State],
) -> jax.Array:
  """Picks the token with the largest value again and again.

  Args:
    keep_count: K.
    mask: [V] bool, tokens that may be picked.
    state: what the values depend on.
    value: function of the state, of the tokens [V] bool that may still be picked, and of the number of the pick, from 0, to
      [V] float32.
    update: function of the state, of a pick and of its number to the next state.

  Returns:
    [K] int32; after the last token that may be picked, indices without meaning.
  """

  def step(number, carry):
    picks, left, state = carry
    # A value that is no number counts as 0, and an infinite one as finite, so that no token is picked twice.
    pick = best(jnp.where(left, jnp.nan_to_num(value(state, left, number)), -jnp.inf))
    return picks.at[number].set(pick), left.at[pick].set(False), update(state, pick, number)

  start: Any = (jnp.zeros([keep_count], jnp.int32), mask, state)
  return jax.lax.fori_loop(0, keep_count, step, start)[0]


def best(values: jax.Array) -> jax.Array:
  """[] int32, the first index of the largest value; values that differ by rounding are equal, -inf is never one of them."""
  largest = values.max()
  least = jnp.where(jnp.isfinite(largest), largest - _TIE * jnp.abs(largest), largest)
  return jnp.argmax(values >= jnp.maximum(least, jnp.finfo(values.dtype).min)).astype(jnp.int32)
