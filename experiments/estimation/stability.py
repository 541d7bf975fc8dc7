"""How far estimates of head importance agree: with one another, between seeds, and between calibration sets of one size.

Axes: N calibration examples, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy import stats

from experiments.estimation import comparison
from experiments.estimation import estimators
from experiments.reporting import tables

# Pairs of calibration sets of each size.
DRAWS = 200


def weights_of(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
  """Head importance from the scores of single examples.

  Args:
    labels: [N] name of each example's data set.
    scores: [N, H].

  Returns:
    [H], or None where heads differ on no data set.
  """
  means = estimators.mean_scores(labels, scores)
  return None if len(estimators.skipped(means)) == len(means) else estimators.weights_of(means)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
  """Spearman's rank correlation; NaN where either argument is constant."""
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return float("nan")
  return float(stats.spearmanr(first, second).statistic)


def over_sizes(labels: np.ndarray, scores: np.ndarray, sizes: Sequence[int], seed: int = 0) -> list[dict[str, float]]:
  """How far the head importances from two calibration sets of the same size agree; the two sets share no example.

  Args:
    labels: [N] name of each example's data set.
    scores: [N, H].
    sizes: examples of each data set; a size for which there are too few examples is left out.
    seed: of the draws.

  Returns:
    For each size, from `DRAWS` pairs of sets: the mean rank correlation, the share of pairs with the same best head, and
    the share of pairs in which both sets distinguish heads.
  """
  rng, found = np.random.default_rng(seed), []
  groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels)]
  for size in sizes:
    if 2 * size > min(map(len, groups)):
      continue
    correlations, same = [], []
    for _ in range(DRAWS):
      drawn = [rng.permutation(group)[: 2 * size].reshape(2, size) for group in groups]
      first, second = (np.concatenate([pair[half] for pair in drawn]) for half in (0, 1))
      first, second = weights_of(labels[first], scores[first]), weights_of(labels[second], scores[second])
      if first is not None and second is not None:
        correlations.append(rank_correlation(first, second))
        same.append(first.argmax() == second.argmax())
    found.append(
      {
        "examples": size,
        "correlation": float(np.nanmean(correlations)) if correlations else float("nan"),
        "same_best": float(np.mean(same)) if same else float("nan"),
        "informative": len(same) / DRAWS,
      }
    )
  return found


def single_heads(hits: Mapping[str, np.ndarray]) -> np.ndarray:
  """[H] accuracy of each head alone, at the larger of the shares at which single heads were measured.

  Args:
    hits: as in `comparison.analyse`; the result is empty if no single head was measured.
  """
  found: dict[float, dict[int, float]] = {}
  for name, right in hits.items():
    row, kept = name.rsplit("@", 1)
    if row.startswith(comparison.SINGLE):
      found.setdefault(float(kept), {})[int(row.removeprefix(comparison.SINGLE))] = float(right.mean())
  at_largest = found[max(found)] if found else {}
  return np.asarray([at_largest[head] for head in sorted(at_largest)])


def over_models(weights: Mapping[str, Mapping[str, np.ndarray]], single: Mapping[str, np.ndarray]) -> str:
  """Tables of how heads differ in several models, and of how far estimates find those that are good alone.

  Args:
    weights: by model and name, [H] importance.
    single: by model, [H] of `single_heads`.
  """
  heads = max(map(len, single.values()))
  lines = ["Each head alone, right answers in %, from the worst head of a model to its best:", ""]
  lines += tables.table(
    ["", *(f"{rank}." for rank in range(1, heads + 1))],
    [[model, *(f"{100 * accuracy:.1f}" for accuracy in sorted(found))] for model, found in single.items()],
  )
  lines += ["", "Spearman's rank correlation over heads with the accuracy of the head alone:", ""]
  rows = []
  for name in next(iter(weights.values())):
    found = [rank_correlation(own[name], single[model]) for model, own in weights.items()]
    rows.append([name, *(f"{each:+.2f}" for each in [*found, float(np.mean(found))])])
  lines += tables.table(["", *weights, "mean"], rows)
  return "\n".join(lines) + "\n"


def markdown(rows: dict[str, np.ndarray], sizes: list[dict[str, float]], single: np.ndarray | None) -> str:
  """Tables of the importances, of their rank correlations, and of the agreement by calibration size.

  Args:
    rows: by name, [H] importance.
    sizes: of `over_sizes`.
    single: [H] accuracy with each head alone, to compare with; or None.
  """
  heads = len(next(iter(rows.values())))
  columns = {**rows, **({} if single is None else {"accuracy of the head alone": single})}
  lines = ["Head importance times the number of heads, so that uniform weights are 1:", ""]
  lines += tables.table(
    ["", *(f"head {head}" for head in range(heads))],
    [[name, *(f"{heads * weight:.2f}" for weight in weights)] for name, weights in rows.items()],
  )
  lines += ["", "Spearman's rank correlation over heads:", ""]
  lines += tables.table(
    ["", *columns],
    [[name, *(f"{rank_correlation(weights, other):+.2f}" for other in columns.values())] for name, weights in rows.items()],
  )
  lines += ["", f"Ablation on two calibration sets without a common example, {DRAWS} pairs of each size:", ""]
  headings = ["examples of each data set", "rank correlation", "same best head", "pairs that distinguish heads"]
  lines += tables.table(
    headings,
    [
      [row["examples"], f"{row['correlation']:+.2f}", f"{100 * row['same_best']:.0f} %", f"{100 * row['informative']:.0f} %"]
      for row in sizes
    ],
    left=0,
  )
  return "\n".join(lines) + "\n"
