"""Rules that keep tokens which differ from one another.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from hawk_jax.selectors import greedy
from hawk_jax.selectors import ranking

# Dart's pivots.
_PIVOTS = 8


@greedy.rule
def divprune(cosines, relevance, mask, *, keep_count):
  """DivPrune (CVPR 2025): each pick is the token farthest, in 1 - cosine, from those picked before.

  The first pick is the token farthest from its nearest neighbour.
  """
  del relevance
  distances = 1 - cosines
  others = mask & ~jnp.eye(len(mask), dtype=bool)
  alone = jnp.min(distances, axis=1, initial=jnp.inf, where=others)
  value = lambda nearest, left, number: jnp.where(number == 0, alone, nearest)
  update = lambda nearest, pick, number: jnp.minimum(nearest, distances[pick])
  return greedy.search(keep_count, mask, jnp.full(len(mask), jnp.inf), value, update)


@greedy.rule
def hawk_mmr(cosines, relevance, mask, *, keep_count, balance=0.5):
  """IDPruner's rule (arXiv 2602.13315) with HAWK's score: argmax of balance * r - (1 - balance) * max cosine to the picked.

  The first pick has the largest relevance.
  """
  mixed = lambda closest: balance * relevance - (1 - balance) * closest
  return _by_distance(cosines, relevance, mask, keep_count, mixed)


@greedy.rule
def zooprune(cosines, relevance, mask, *, keep_count):
  """ZOO-Prune (CVPR 2026): argmax of r * (1 - max cosine to the picked), r the scaled sensitivity of the projector.

  The paper estimates the sensitivity from finite differences; here it comes from exact directional derivatives
  (`models.sensitivity`). The first pick has the largest sensitivity.
  """
  return _by_distance(cosines, relevance, mask, keep_count, lambda closest: relevance * (1 - closest))


def _by_distance(cosines, relevance, mask, keep_count, value_of):
  """Picks by a function of each token's largest cosine to the tokens picked; the first by relevance alone."""
  value = lambda closest, left, number: jnp.where(number == 0, relevance, value_of(closest))
  update = lambda closest, pick, number: jnp.maximum(closest, cosines[pick])
  return greedy.search(keep_count, mask, jnp.full(len(mask), -1.0), value, update)


@greedy.rule
def dpp(cosines, relevance, mask, *, keep_count):
  """CDPruner's rule (NeurIPS 2025): greedy MAP of the DPP L = diag(r) cos diag(r). With HAWK's score it is `hawk+dpp`."""
  kernel = lambda pick: relevance[pick] * relevance * cosines[pick]
  return _by_volume(relevance * relevance * jnp.diagonal(cosines), kernel, mask, keep_count, lambda residual: residual)


def coin(features, scores, visual_mask, counts, seeds, *, keep_count, question, balance=0.5, coverage=0.5, ridge=1.0):
  """CoIn (CVPR 2026): greedily maximizes (1 - coverage) * sum of information + coverage * logdet(F'F + ridge).

  The information of a token is balance * its norm + (1 - balance) * its cosine to the mean embedding of the question, both
  scaled to the range from 0 to 1. The gain of a token in the second term is the logarithm of its residual in an incremental
  Cholesky factor. F are features of length 1 here, so that `ridge` has a scale; the values of the three constants are ours,
  since our source for the rule does not give the paper's.
  """
  del scores
  features = jnp.where(visual_mask[..., None], features, 0).astype(jnp.float32)
  with jax.default_matmul_precision("highest"):
    aligned = jnp.einsum("BVD,BD->BV", greedy.unit(features), greedy.unit(question))
  norms = ranking.scaled(jnp.linalg.norm(features, axis=-1), visual_mask)
  information = balance * norms + (1 - balance) * ranking.scaled(aligned, visual_mask)

  def row(cosines, information, mask, *, keep_count):
    gain = lambda residual: (1 - coverage) * information + coverage * jnp.log(jnp.maximum(residual, 1e-12))
    return _by_volume(jnp.diagonal(cosines) + ridge, lambda pick: cosines[pick], mask, keep_count, gain)

  pick = greedy.rule(row, scale=False)
  return pick(features, information, visual_mask, counts, seeds, keep_count=keep_count)


def _by_volume(diagonal, kernel, mask, keep_count, gain):
  """Picks by a function of each token's residual, what the tokens picked leave of the diagonal of a kernel.

  Each pick adds one row to an incremental Cholesky factor, in a static K x V buffer. Residuals as small as rounding errors
  are 0.
  """

  def update(state, pick, number):
    residual, rows = state
    row = (kernel(pick) - rows[:, pick] @ rows) / jnp.sqrt(jnp.maximum(residual[pick], 1e-12))
    left = residual - row * row
    return jnp.where(left > 1e-6 * diagonal, left, 0.0), rows.at[number].set(row)

  start = (diagonal, jnp.zeros([keep_count, len(mask)]))
  return greedy.search(keep_count, mask, start, lambda state, left, number: gain(state[0]), update)


def dart(features, scores, visual_mask, counts, seeds, *, keep_count):
  """DART (arXiv 2502.11494): keeps eight pivots, and for each in turn the tokens that are least like it.

  Pivots are the tokens whose keys have the largest L1 norms. They share what is left of the budget equally, rounded up, the
  first ones first. The authors prune after two layers of the decoder (`score_layer=2` here) and take four of the eight
  pivots from the text; here all are visual tokens, since before the first layer texts and pictures lie far apart.
  """
  del seeds

  def row(features, scores, mask, count):
    with jax.default_matmul_precision("highest"):
      normed = greedy.unit(jnp.where(mask[:, None], features, 0))
    _, pivots = jax.lax.top_k(jnp.where(mask, scores, -jnp.inf), min(_PIVOTS, keep_count))
    number = jnp.minimum(len(pivots), count)
    chosen = jnp.zeros_like(mask).at[pivots].max(jnp.arange(len(pivots)) < number)
    share = -((number - count) // jnp.maximum(number, 1))

    def step(turn, chosen):
      with jax.default_matmul_precision("highest"):
        unlike = -(normed @ normed[pivots[turn]])
      wanted = jnp.where(turn < number, jnp.minimum(share, count - chosen.sum()), 0)
      found = ranking.top_k(unlike[None], (mask & ~chosen)[None], wanted[None], keep_count)[0]
      return chosen.at[found].max(found >= 0)

    return jax.lax.fori_loop(0, len(pivots), step, chosen)

  chosen = jax.vmap(row)(features, scores, visual_mask, jnp.minimum(counts, visual_mask.sum(-1)))
  return ranking.top_k(chosen.astype(jnp.float32), visual_mask, counts, keep_count)
