"""Selectors: the rules that pick visual tokens, HAWK's and its rivals', behind one interface.

The pick of a selector is a function `(features, scores, visual_mask, counts, seeds, *, keep_count) -> kept`:

  features: [B, V, D] visual tokens as the decoder gets them.
  scores: [B, V] float32, HAWK's fused scores, or what `Selector.relevance` names, or those that the caller gives instead.
  visual_mask: [B, V] bool, True on the tokens that may be picked.
  counts: [B] int32, tokens to keep, at most keep_count.
  seeds: [B] uint32, for selectors that draw at random.
  keep_count: static K, at most V.
  kept: [B, K] int32 indices into V, ascending; unused slots come last and hold -1.

A row's choice depends on that row alone. Ties go to the lower index. docs/method.md describes the rules.

One file per family: `ranking`, `diversity`, `coverage`, `regions`, `merging`; `greedy` holds what rules share that pick one
token after the other, and `modifiers` what can be put before every rule. `select` runs a rule with all of it.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hawk_jax.selectors import coverage
from hawk_jax.selectors import diversity
from hawk_jax.selectors import merging
from hawk_jax.selectors import modifiers
from hawk_jax.selectors import regions
from hawk_jax.selectors.coverage import hawk_scope
from hawk_jax.selectors.coverage import hawk_tops
from hawk_jax.selectors.coverage import scope
from hawk_jax.selectors.coverage import tops
from hawk_jax.selectors.diversity import coin
from hawk_jax.selectors.diversity import dart
from hawk_jax.selectors.diversity import divprune
from hawk_jax.selectors.diversity import dpp
from hawk_jax.selectors.diversity import hawk_mmr
from hawk_jax.selectors.diversity import zooprune
from hawk_jax.selectors.merging import MERGES
from hawk_jax.selectors.merging import visionzip
from hawk_jax.selectors.merging import visionzip_merge
from hawk_jax.selectors.ranking import evs
from hawk_jax.selectors.ranking import hawk
from hawk_jax.selectors.ranking import in_order
from hawk_jax.selectors.ranking import qaprune
from hawk_jax.selectors.ranking import random
from hawk_jax.selectors.ranking import top_k
from hawk_jax.selectors.regions import grid
from hawk_jax.selectors.regions import pool
from hawk_jax.selectors.selector import given
from hawk_jax.selectors.selector import MEASURED
from hawk_jax.selectors.selector import Selector

SELECTORS: dict[str, Selector] = {
  "hawk": Selector(hawk),
  "sepprune": Selector(hawk, relevance="separator"),
  "random": Selector(random, relevance=None),
  "grid": Selector(grid, needs=("curve",), relevance=None),
  "pool": Selector(grid, needs=("curve",), relevance=None, merge=pool),
  "divprune": Selector(divprune, relevance=None),
  "hawk+dpp": Selector(dpp),
  "cdpruner": Selector(dpp, needs=("scores",)),
  "hawk+mmr": Selector(hawk_mmr),
  "qaprune": Selector(qaprune),
  "hawk+tops": Selector(hawk_tops),
  "tops": Selector(tops, relevance="saliency"),
  "hawk+scope": Selector(hawk_scope),
  "scope": Selector(scope, relevance="saliency"),
  "coin": Selector(coin, needs=("question",), relevance=None),
  "zooprune": Selector(zooprune, relevance="sensitivity"),
  "dart": Selector(dart, relevance="keys"),
  "visionzip": Selector(visionzip, relevance="saliency", merge=visionzip_merge),
  "evs": Selector(evs, needs=("places",), relevance=None),
  "fastv": Selector(hawk, stage="decoder"),
}

__all__ = [
  "MEASURED",
  "MERGES",
  "SELECTORS",
  "Selector",
  "coin",
  "coverage",
  "dart",
  "diversity",
  "divprune",
  "dpp",
  "evs",
  "grid",
  "hawk",
  "hawk_mmr",
  "hawk_scope",
  "hawk_tops",
  "in_order",
  "merging",
  "modifiers",
  "pool",
  "qaprune",
  "random",
  "regions",
  "scope",
  "select",
  "tops",
  "top_k",
  "visionzip",
  "visionzip_merge",
  "zooprune",
]


def select(
  rule: Selector,
  features: jax.Array,
  scores: jax.Array,
  visual_mask: jax.Array,
  counts: jax.Array,
  seeds: jax.Array,
  *,
  keep_count: int,
  merge: str = "none",
  sink_filter: float = 0.0,
  region_floor: float = 0.0,
  **needed: jax.Array | None,
) -> tuple[jax.Array, jax.Array | None]:
  """Picks tokens by a rule, with the modifiers, and says what becomes of the others.

  With the sink filter, the rule does not see the sinks. One of the tokens kept, in the place of the sink of the largest
  norm, is their average. With the region floor, a share of the budget goes to the best token of each region, and the rest to
  the rule. Rows with a budget of one token have neither.

  Args:
    rule: of `SELECTORS`.
    features: as above.
    scores: as above.
    visual_mask: as above.
    counts: as above.
    seeds: as above.
    keep_count: as above.
    merge: `none` drops the tokens that are not kept, `nearest` averages each into the kept token of the largest cosine; a
      rule with a merge of its own uses that.
    sink_filter: share of the tokens that count as sinks, see `modifiers.sinks`; 0 filters nothing.
    region_floor: share of the budget, see `modifiers.region_floor`; 0 reserves nothing.
    **needed: arrays that some rules need, see `Selector.needs`.

  Returns:
    kept [B, K], and the embeddings of the kept tokens [B, K, D], or None where these are the features themselves.
  """
  slots = visual_mask.shape[1]
  several, none = (jnp.minimum(counts, visual_mask.sum(-1)) > 1)[:, None], jnp.zeros_like(visual_mask)
  sinks, holder, floor = none, none, none
  if sink_filter:
    sinks = modifiers.sinks(features, visual_mask, sink_filter) & several
    norms = jnp.where(sinks, jnp.linalg.norm(features.astype(jnp.float32), axis=-1), -jnp.inf)
    holder = sinks & (jnp.arange(slots) == jnp.argmax(norms, axis=1)[:, None])
  left = visual_mask & ~sinks
  counts_left = counts - holder.sum(-1)
  if region_floor:
    floor = several & modifiers.region_floor(
      scores, left, counts_left, region_floor, keep_count=keep_count, curve=given("curve", needed.get("curve"))
    )
  by_rule = left & ~floor
  rule_counts = jnp.minimum(counts_left - floor.sum(-1), by_rule.sum(-1))
  arguments = (features, scores, by_rule, rule_counts, seeds)
  kept = picks = rule(*arguments, keep_count=keep_count, **needed)
  if sink_filter or region_floor:
    chosen = merging.members(picks, slots) | holder | floor
    kept = top_k(chosen.astype(jnp.float32), visual_mask, chosen.sum(-1), keep_count)

  if rule.merge is not None:
    joined = rule.merge(*arguments, keep_count=keep_count, kept=picks, **rule.needed(needed))
    joined = jnp.where(floor, jnp.arange(slots), joined)
  elif merge == "nearest":
    centers = jnp.where(jnp.take_along_axis(holder, jnp.maximum(kept, 0), axis=1), -1, kept)
    joined = merging.nearest(features, left, centers)
  elif sink_filter:
    joined = jnp.where(merging.members(kept, slots), jnp.arange(slots), -1)
  else:
    return kept, None
  if sink_filter:
    joined = jnp.where(sinks, jnp.argmax(holder, axis=1)[:, None], joined)
  return kept, merging.average(features, joined, kept)
