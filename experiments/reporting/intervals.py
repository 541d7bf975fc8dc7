"""Intervals of means over questions, and paired tests of two rows that answered the same questions.

Axes: Q questions.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

RESAMPLES = 2000


def bootstrap(questions: int) -> Callable[[np.ndarray], list[float]]:
  """A function of one number per question, [Q], to the bounds of the 95 % bootstrap interval of their mean.

  Every call resamples the same questions, so that intervals of several rows are comparable.
  """
  weights = np.random.default_rng(0).multinomial(questions, np.full(questions, 1 / questions), RESAMPLES) / questions
  return lambda values: [float(x) for x in np.quantile(weights @ values, [0.025, 0.975])]


def paired(found: np.ndarray, other: np.ndarray, interval: Callable[[np.ndarray], list[float]]) -> dict[str, float]:
  """The difference of two rows on the same questions.

  Args:
    found: [Q] scores of each question; of one that is right or wrong, bool.
    other: [Q] scores of the row to compare with.
    interval: of `bootstrap`.

  Returns:
    difference: of the means; low and high: bounds of its interval; p: the p-value of the exact sign test of the questions
    that differ, which is McNemar's where scores are right or wrong.
  """
  gained, lost = int((found > other).sum()), int((other > found).sum())
  low, high = interval(found.astype(float) - other)
  p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
  return {"difference": float(found.mean() - other.mean()), "low": low, "high": high, "p": float(p)}


def describe(entry: dict[str, float] | None) -> str:
  """The result of `paired` in points; empty for None."""
  if entry is None:
    return ""
  difference, low, high = (f"{100 * entry[name]:+.1f}" for name in ("difference", "low", "high"))
  return f"{difference} ({low} to {high}), p {entry['p']:.1g}"
