"""Rules that cover: a token is worth what it adds to how well the tokens kept represent all others.

The cover of token j is its largest cosine to a token kept, and the gain of token i is the sum over j of how much i would
raise that cover. A pick changes the cover of few tokens. Only their terms are computed again, so gains stay exact, up to
rounding, in a small part of the time that computing all gains after every pick would take (`experiments.speed.selection`).

Axes: V visual slots, K kept slots.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hawk_jax.selectors import greedy

# Tokens whose changed cover is accounted for at a time.
_AT_ONCE = 64


def _tops(cosines, relevance, mask, *, keep_count, diversity=0.5, coverage=0.4):
  """TOPS, stage I (arXiv 2606.27161): argmax of r + diversity * d + coverage * c, each divided by its mean over candidates.

  r is relevance, d is 1 - the largest cosine to the tokens picked, and c is the gain in cover over the tokens not picked.
  The first pick has the largest relevance. The weights are the paper's for Qwen2.5-VL. The paper repeats the rule in two
  layers of the decoder with other relevances, which is not done here. Our source for the paper does not say what r is in
  stage I: `tops` takes the attention that tokens receive in the vision tower, and `hawk+tops` HAWK's score, scaled to 0..1.
  """

  def value(covered, gains, left, number):
    share = lambda values: values / jnp.maximum(jnp.mean(values, where=left), 1e-6)
    mixed = share(relevance) + diversity * share(1 - covered) + coverage * share(gains)
    return jnp.where(number == 0, relevance, mixed)

  return _search(cosines, mask, keep_count, jnp.full(len(mask), -1.0), value)


def _scope(cosines, relevance, mask, *, keep_count, alpha=1.0):
  """SCOPE (NeurIPS 2025): argmax of A^alpha * gain in cover, where no token is covered at first.

  A is the attention that a token receives in the vision tower: from the class token, or from all where there is none.
  `hawk+scope` takes HAWK's score, scaled to 0..1.
  """
  weight = relevance**alpha
  return _search(cosines, mask, keep_count, jnp.zeros(len(mask)), lambda covered, gains, left, number: weight * gains)


tops, hawk_tops = greedy.rule(_tops, scale=False), greedy.rule(_tops)
scope, hawk_scope = greedy.rule(_scope, scale=False), greedy.rule(_scope)


def _search(cosines, mask, keep_count, covered, value) -> jax.Array:
  """`greedy.search` by a function of covers, gains, the tokens left and the number of the pick.

  All covers begin with those given.
  """
  # A token equal to one that is picked adds nothing. Padding, and later what is picked, needs no cover.
  cosines = jnp.where(cosines > 1 - 1e-6, 1.0, cosines)
  covered = jnp.where(mask, covered, jnp.inf)
  gains = jnp.maximum(cosines - covered, 0.0).sum(axis=1)

  def update(state, pick, number):
    covered, gains = state
    raised = jnp.maximum(covered, cosines[pick]).at[pick].set(jnp.inf)
    return raised, _lowered(gains, cosines, covered, raised)

  return greedy.search(keep_count, mask, (covered, gains), lambda state, left, number: value(*state, left, number), update)


def _lowered(gains: jax.Array, cosines: jax.Array, before: jax.Array, after: jax.Array) -> jax.Array:
  """[V] gains once covers rose from `before` to `after`, both [V]: less the terms of the tokens whose cover changed."""

  def lower(state):
    gains, rose = state
    changed = jnp.nonzero(rose, size=_AT_ONCE, fill_value=len(rose))[0]
    rows = cosines.at[changed].get(mode="fill", fill_value=-1.0)
    term = lambda covered: jnp.maximum(rows - covered.at[changed].get(mode="fill", fill_value=jnp.inf)[:, None], 0.0)
    return gains - (term(before) - term(after)).sum(axis=0), rose.at[changed].set(False, mode="drop")

  return jax.lax.while_loop(lambda state: state[1].any(), lower, (gains, after > before))[0]
