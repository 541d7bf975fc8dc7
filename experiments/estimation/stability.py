"""How far estimates of head importance agree: with one another, over seeds and over calibration sizes.

Axes: N calibration examples, H heads.
"""

from __future__ import annotations

from collections.abc import Sequence
import warnings

import numpy as np
from scipy import stats

from hawk_jax import importance

DRAWS = 200


def weights_of(labels: np.ndarray, scores: np.ndarray) -> np.ndarray | None:
  """Head importance from the scores of single examples.

  Args:
    labels: [N] data set of each example.
    scores: [N, H].

  Returns:
    [H], or None where no data set tells heads apart.
  """
  drops = np.stack([scores[labels == label].mean(axis=0) for label in dict.fromkeys(labels)], axis=1)
  if not np.ptp(drops, axis=0).any():
    return None
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)  # of data sets that are skipped
    return importance.from_ablation(drops)


def rank_correlation(first: np.ndarray, second: np.ndarray) -> float:
  """Spearman's; NaN where either is constant."""
  if np.ptp(first) == 0 or np.ptp(second) == 0:
    return float("nan")
  return float(stats.spearmanr(first, second).statistic)


def over_sizes(labels: np.ndarray, scores: np.ndarray, sizes: Sequence[int], seed: int = 0) -> list[dict[str, float]]:
  """How alike the importances of two calibration sets of one size are that share no example.

  Args:
    labels: [N] data set of each example.
    scores: [N, H].
    sizes: examples of each data set; those of which two sets cannot be drawn are left out.
    seed: of the draws.

  Returns:
    For each size: the mean rank correlation, the share of pairs with the same best head, and the share of pairs where
    both sets told heads apart, of `DRAWS` pairs.
  """
  rng, found = np.random.default_rng(seed), []
  groups = [np.flatnonzero(labels == label) for label in dict.fromkeys(labels)]
  for size in sizes:
    if 2 * size > min(map(len, groups)):
      continue
    correlations, same = [], []
    for _ in range(DRAWS):
      drawn = [rng.permutation(group)[:2 * size].reshape(2, size) for group in groups]
      first, second = (np.concatenate([pair[half] for pair in drawn]) for half in (0, 1))
      first, second = weights_of(labels[first], scores[first]), weights_of(labels[second], scores[second])
      if first is not None and second is not None:
        correlations.append(rank_correlation(first, second))
        same.append(first.argmax() == second.argmax())
    found.append({"examples": size, "correlation": float(np.nanmean(correlations)) if correlations else float("nan"),
                  "same_best": float(np.mean(same)) if same else float("nan"), "informative": len(same) / DRAWS})
  return found


def markdown(rows: dict[str, np.ndarray], sizes: list[dict[str, float]], single: np.ndarray | None) -> str:
  """Tables of the importances, their rank correlations, and what the calibration size does.

  Args:
    rows: by name, [H] importance.
    sizes: of `over_sizes`.
    single: [H] accuracy with each head alone, to compare with; or None.
  """
  names = list(rows)
  heads = len(rows[names[0]])
  lines = ["Head importance, 1 = equal heads:", "", "| | " + " | ".join(f"head {head}" for head in range(heads)) + " |",
           "|---|" + "---:|" * heads]
  lines += [f"| {name} | " + " | ".join(f"{heads * weight:.2f}" for weight in rows[name]) + " |" for name in names]
  columns = {**rows, **({} if single is None else {"accuracy of the head alone": single})}
  lines += ["", "Spearman's rank correlation over heads:", "", "| | " + " | ".join(columns) + " |",
            "|---|" + "---:|" * len(columns)]
  lines += [f"| {name} | " + " | ".join(f"{rank_correlation(rows[name], other):+.2f}" for other in columns.values()) + " |"
            for name in names]
  lines += ["", f"Ablation on two calibration sets without a common example, {DRAWS} pairs of each size:", "",
            "| examples of each data set | rank correlation | same best head | pairs that tell heads apart |",
            "|---:|---:|---:|---:|"]
  lines += [f"| {row['examples']} | {row['correlation']:+.2f} | {100 * row['same_best']:.0f} % | "
            f"{100 * row['informative']:.0f} % |" for row in sizes]
  return "\n".join(lines) + "\n"
