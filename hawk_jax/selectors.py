"""Selectors: the rules that pick visual tokens, HAWK's and its rivals', behind one interface.

The pick of a selector is a function `(features, scores, visual_mask, counts, seeds, *, keep_count) -> kept`:

  features: [B, V, D] visual tokens as the decoder gets them.
  scores: [B, V] float32, HAWK's fused scores, or those that the caller gives instead.
  visual_mask: [B, V] bool, True on real visual tokens.
  counts: [B] int32, tokens to keep, at most keep_count.
  seeds: [B] uint32, for selectors that draw at random.
  keep_count: static K, at most V.
  kept: [B, K] int32 indices into V, ascending; unused slots come last and hold -1.

A row's choice depends on that row alone. Ties go to the lower index. docs/method.md describes the rivals.

Axes: B batch, V visual slots, K kept slots, D hidden size, A position axes.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

import jax
import jax.numpy as jnp

from hawk_jax import scoring


@dataclasses.dataclass(frozen=True)
class Selector:
  """A rule that picks visual tokens.

  Attributes:
    pick: the function described above.
    needs: further inputs of the rule. `places`: `pick` has a keyword argument `places`, see `Prompt.visual_places`.
      `scores`: the caller must give scores, since the published rule does not use HAWK's.
    stage: where in the model tokens are removed: `input`, before the decoder, or `decoder`, after some of its layers
      (models/stages.py). In the latter case, `scores` are computed by that stage.
  """

  pick: Callable[..., jax.Array]
  needs: tuple[str, ...] = ()
  stage: str = "input"

  def __call__(self, features, scores, visual_mask, counts, seeds, *, keep_count, **needed):
    """Calls `pick` with the entries of `needed` that are named in `needs`, for features and scores of any size."""
    features, scores = scoring.bounded(features, visual_mask), scoring.bounded(scores, visual_mask)
    needed = {name: value for name, value in needed.items() if name in self.needs}
    return self.pick(features, scores, visual_mask, counts, seeds, keep_count=keep_count, **needed)


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


def _scaled(values, mask):
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
  sensitivity = (_scaled(error.mean(-1), visual_mask) + _scaled(spread[..., 0].mean(-1), visual_mask)) / 2
  return top_k(balance * _scaled(scores, visual_mask) + (1 - balance) * sensitivity, visual_mask, counts, keep_count)


def _greedy(pick_row):
  """Makes a `pick` of a rule for one row, (unit features [V, D], relevance [V], mask [V], K) -> picks [K], best first.

  Relevance is the score scaled to the range from 0 to 1 over the real tokens.
  """

  def select(features, scores, visual_mask, counts, seeds, *, keep_count):
    del seeds
    features = features.astype(jnp.float32)
    unit = features / jnp.maximum(jnp.linalg.norm(features, axis=-1, keepdims=True), 1e-12)
    with jax.default_matmul_precision("highest"):
      picks = jax.vmap(functools.partial(pick_row, keep_count=keep_count))(unit, _scaled(scores, visual_mask), visual_mask)
    return in_order(picks, visual_mask, counts)

  select.__doc__ = pick_row.__doc__
  return select


@_greedy
def divprune(unit, relevance, mask, keep_count):
  """DivPrune (CVPR 2025): each pick is the token farthest, in 1 - cosine, from those picked before.

  The first pick is the token farthest from its nearest neighbour.
  """
  del relevance
  indices = jnp.arange(len(unit))

  def nearest(index):
    return jnp.min(1 - unit @ unit[index], initial=jnp.inf, where=mask & (indices != index))

  first = jnp.argmax(jnp.where(mask, jax.lax.map(nearest, indices, batch_size=256), -jnp.inf))
  distance = jnp.where(mask, jnp.inf, -jnp.inf)

  def step(number, state):
    picks, distance = state
    pick = jnp.where(number == 0, first, jnp.argmax(distance)).astype(jnp.int32)
    distance = jnp.minimum(distance, 1 - unit @ unit[pick]).at[pick].set(-jnp.inf)
    return picks.at[number].set(pick), distance

  return jax.lax.fori_loop(0, keep_count, step, (jnp.zeros([keep_count], jnp.int32), distance))[0]


@_greedy
def dpp(unit, relevance, mask, keep_count):
  """CDPruner's rule (NeurIPS 2025): greedy MAP of the DPP L = diag(r) cos diag(r). With HAWK's score it is `hawk+dpp`.

  Each pick adds one row to an incremental Cholesky factor, in a static K x V buffer; residuals are clamped at 0.
  """
  residual = jnp.where(mask, relevance * relevance * jnp.sum(unit * unit, axis=-1), -jnp.inf)

  def step(number, state):
    picks, rows, residual = state
    pick = jnp.argmax(residual).astype(jnp.int32)
    kernel = relevance[pick] * relevance * (unit @ unit[pick])
    row = (kernel - rows[:, pick] @ rows) / jnp.sqrt(jnp.maximum(residual[pick], 1e-12))
    left = jnp.where(jnp.isfinite(residual), jnp.maximum(residual - row * row, 0.0), residual)
    return picks.at[number].set(pick), rows.at[number].set(row), left.at[pick].set(-jnp.inf)

  start = jnp.zeros([keep_count], jnp.int32), jnp.zeros([keep_count, len(unit)]), residual
  return jax.lax.fori_loop(0, keep_count, step, start)[0]


@_greedy
def hawk_mmr(unit, relevance, mask, keep_count, *, balance=0.5):
  """IDPruner's rule (arXiv 2602.13315) with HAWK's score: argmax of balance * r - (1 - balance) * max cosine to the picked.

  The first pick has the largest relevance.
  """

  def step(number, state):
    picks, closest = state
    value = jnp.where(number == 0, relevance, balance * relevance - (1 - balance) * closest)
    pick = jnp.argmax(jnp.where(mask & (closest < jnp.inf), value, -jnp.inf)).astype(jnp.int32)
    cosine = unit @ unit[pick]
    closest = jnp.where(number == 0, cosine, jnp.maximum(closest, cosine)).at[pick].set(jnp.inf)
    return picks.at[number].set(pick), closest

  start = jnp.zeros([keep_count], jnp.int32), jnp.zeros([len(unit)])
  return jax.lax.fori_loop(0, keep_count, step, start)[0]


SELECTORS: dict[str, Selector] = {
  "hawk": Selector(hawk),
  "random": Selector(random),
  "divprune": Selector(divprune),
  "hawk+dpp": Selector(dpp),
  "cdpruner": Selector(dpp, needs=("scores",)),
  "hawk+mmr": Selector(hawk_mmr),
  "qaprune": Selector(qaprune),
  "evs": Selector(evs, needs=("places",)),
  "fastv": Selector(hawk, stage="decoder"),
}
