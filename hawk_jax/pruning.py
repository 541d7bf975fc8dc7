"""HAWK on one screen: `prune` scores the visual tokens, fuses the heads, sets the budget, selects and compacts.

`hawk_jax.plans` holds the settings, `Pruning`, and what they become for a batch, `Plan`. docs/method.md describes the steps.

Axes: B batch, T text slots, V visual slots, K kept slots, H query heads, D hidden size.
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from hawk_jax import budgets
from hawk_jax import prompt as prompt_lib
from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax.plans import Cut
from hawk_jax.plans import head_weights
from hawk_jax.plans import KEEP_MINIMUM
from hawk_jax.plans import Plan
from hawk_jax.plans import Pruning

__all__ = ["KEEP_MINIMUM", "Cut", "Plan", "Pruning", "head_weights", "prune", "reduce", "score"]


def prune(
  prompt: prompt_lib.Prompt,
  text: jax.Array,
  visual: jax.Array,
  projections: scoring.Projections | None = None,
  plan: Plan | None = None,
  measures: Mapping[str, jax.Array] | None = None,
) -> prompt_lib.Sequence:
  """Removes the visual tokens that matter least to the question (HAWK, Equations 4 to 7).

  Args:
    prompt: a batch of prompts.
    text: [B, T, D] text embeddings.
    visual: [B, V, D] visual embeddings, as the decoder gets them.
    projections: the first decoder layer's query and key projections; may be None if there is no plan, or if
      the plan holds scores.
    plan: how many tokens to keep and by which rule; None keeps all.
    measures: [B, V] what the port measured of each visual token, by name, for the rules that need it.

  Returns:
    The compacted prompts, of length T + K.

  Raises:
    ValueError: a plan that does not fit the batch.
  """
  if plan is None or not prompt.visual_mask.shape[1]:
    return prompt_lib.compact(prompt, text, visual, prompt_lib.keep_all(prompt))
  plan.check(len(prompt.visual_mask))
  scores = score(prompt, text, visual, projections, plan, measures)
  return reduce(prompt, text, visual, scores, plan)


def score(
  prompt: prompt_lib.Prompt,
  text: jax.Array,
  visual: jax.Array,
  projections: scoring.Projections | None,
  plan: Plan,
  measures: Mapping[str, jax.Array] | None = None,
) -> jax.Array:
  """[B, V] float32, the fused score of every visual token, or what the plan's rule ranks tokens by in its place.

  The arguments are those of `prune`.
  """
  settings, mask = plan.pruning, prompt.visual_mask
  if (others := _other_scores(prompt, visual, projections, plan, measures)) is not None:
    return others
  assert projections is not None
  query = scoring.separator(prompt) if settings.rule.relevance == "separator" else prompt.query_mask
  positions = (prompt.text_positions, prompt.visual_positions) if settings.rope else None
  heads = scoring.head_scores(projections, text, visual, query, positions)  # [B, H, V], Equation 4
  if settings.sink_filter:
    mask = mask & ~selectors.modifiers.sinks(visual, mask, settings.sink_filter)
  weights = plan.head_importance
  if settings.head_weights != "importance":
    weights = _question_weights(prompt, text, projections, settings, heads, mask, query)
  return scoring.fuse(scoring.normalize(heads, mask, settings.normalization), weights)  # Equations 5 and 6


def reduce(
  prompt: prompt_lib.Prompt, text: jax.Array, visual: jax.Array, scores: jax.Array, plan: Plan
) -> prompt_lib.Sequence:
  """Budget, selection (Equation 7) and compaction, by [B, V] float32 scores.

  The other arguments are those of `prune`. Between two decoder layers, text and visual are their hidden states.
  """
  settings, mask = plan.pruning, prompt.visual_mask
  counts = jnp.full(mask.shape[:1], plan.keep_count) if plan.counts is None else jnp.asarray(plan.counts)
  if plan.keep_mass is not None:
    counts = jnp.minimum(counts, budgets.mass_counts(scores, mask, plan.keep_mass))
  kept, merged = selectors.select(
    settings.rule,
    visual,
    scores,
    mask,
    counts,
    jnp.zeros(mask.shape[:1], jnp.uint32) if plan.seeds is None else jnp.asarray(plan.seeds),
    keep_count=min(plan.keep_count, mask.shape[1]),
    merge=settings.merge,
    sink_filter=settings.sink_filter,
    region_floor=settings.region_floor,
    places=prompt.visual_places,
    curve=prompt.visual_curve,
    question=scoring.mean_query(text, prompt.query_mask),
  )
  return prompt_lib.compact(prompt, text, visual, kept, merged)


def _other_scores(prompt, visual, projections, plan, measures) -> jax.Array | None:
  """[B, V] scores that the plan holds, or that its rule uses in place of HAWK's (`Selector.relevance`), or None."""
  relevance = plan.pruning.rule.relevance
  if plan.scores is not None:
    return jnp.asarray(plan.scores, jnp.float32)
  if relevance in selectors.MEASURED:
    return measures[relevance]
  return scoring.key_norms(projections, visual) if relevance == "keys" else None


def _question_weights(prompt, text, projections, settings, heads, mask, query) -> jax.Array:
  """[B, H] head weights that follow from each question: see `scoring.question_weights`."""
  positions = (prompt.text_positions, prompt.text_positions) if settings.rope else None
  text_heads = scoring.head_scores(projections, text, text, query, positions)
  last = jnp.max(prompt.text_order, axis=1, keepdims=True, where=query, initial=-1)
  seen = (prompt.text_order >= 0) & (prompt.text_order <= last)
  return scoring.question_weights(heads, text_heads, mask, seen, settings.head_weights)
