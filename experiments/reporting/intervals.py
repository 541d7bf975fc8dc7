"""Intervals of means over questions, or over models and questions, and tests of differences on the same questions.

Axes: Q questions, M models.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy import stats

RESAMPLES = 2000
# Names of the tests of `paired` and of `crossed`.
MCNEMAR, MIN_F = "McNemar's exact p", "the p of Clark's min F'"


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


def crossed(values: np.ndarray) -> dict[str, float]:
  """The mean over models that all answered the same questions, where both are samples of many.

  The variance of the mean is that over models plus that over questions, with Satterthwaite's degrees of freedom: Clark's min
  F' (The language-as-fixed-effect fallacy, 1973), a slightly conservative test. The variance over models alone lacks that of
  the questions, which all models share; that of the questions alone hides that models are few. Models that answer alike have
  the interval of one.

  Args:
    values: [M, Q] scores, or differences of scores, of two or more models and questions.

  Returns:
    difference: the mean; low and high: bounds of its 95 % interval; p: the two-sided p-value of a mean of 0.
  """
  mean, counts = float(values.mean()), np.asarray(values.shape)
  parts = np.asarray([values.mean(axis=1).var(ddof=1), values.mean(axis=0).var(ddof=1)]) / counts
  error = float(np.sqrt(parts.sum()))
  if not error:  # every model and every question gave the mean
    return {"difference": mean, "low": mean, "high": mean, "p": float(mean == 0)}
  t = stats.t(parts.sum() ** 2 / (parts**2 / (counts - 1)).sum())
  half = float(t.ppf(0.975)) * error
  return {"difference": mean, "low": mean - half, "high": mean + half, "p": float(2 * t.sf(abs(mean) / error))}


def describe(entry: dict[str, float] | None) -> str:
  """The result of `paired` or `crossed` in points; empty for None."""
  if entry is None:
    return ""
  difference, low, high = (f"{100 * entry[name]:+.1f}" for name in ("difference", "low", "high"))
  return f"{difference} ({low} to {high}), p {entry['p']:.1g}"
