"""Scores that several benchmarks use; percentages are from 0 to 100."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
import statistics


def accuracy(groups: Mapping[str, Sequence[str]], scores: Sequence[float]) -> dict[str, float]:
  """The mean score in percent: `overall`, and of every group.

  Args:
    groups: name of a column to each question's value in it; questions with an empty value are in no group of that column.
    scores: of the questions, from 0 to 1.
  """
  result = {"overall": 100 * statistics.fmean(scores)}
  for values in groups.values():
    for value in sorted(set(values) - {""}):
      result[value] = 100 * statistics.fmean(score for other, score in zip(values, scores) if other == value)
  return result


def all_right(keys: Iterable[Hashable], scores: Sequence[float]) -> dict[Hashable, float]:
  """For each key 1 if every question that has it is wholly right, else 0; keys are in the order of their first question."""
  groups: dict[Hashable, float] = {}
  for key, score in zip(keys, scores):
    groups[key] = groups.get(key, 1.0) * float(score == 1)
  return groups
