"""Questions that are answered with a word or a phrase."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.evaluation.benchmarks.tsv import Row


def prompt(row: Row, family: str) -> str:
  """The question, and how to answer it; the same wording for all models."""
  del family
  return row.fields["question"] + "\nAnswer the question using a single word or phrase."


def score(row: Row, prediction: str) -> float:
  """1 if the prediction equals one of the row's answers, else 0; see `exact`."""
  return exact(prediction, row.answers)


def exact(prediction: str, answers: Sequence[str]) -> float:
  """Exact match: equal to one of the answers, except for case and surrounding space."""
  return float(any(answer.strip().lower() == prediction.strip().lower() for answer in answers))
