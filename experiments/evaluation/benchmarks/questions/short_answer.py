"""Questions that are answered with a word or a phrase."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.evaluation.benchmarks.tsv import Row

_ENDING = "Answer the question using a single word or phrase."
_ENDINGS = {"qwen3": "Please answer concisely with short words or phrases when possible."}


def prompt(row: Row, family: str) -> str:
  """The question, and how to answer it; Qwen3-VL has a wording of its own."""
  return f"{row.fields['question']}\n{_ENDINGS.get(family, _ENDING)}"


def score(row: Row, prediction: str) -> float:
  """1 if the prediction equals one of the row's answers, else 0; see `exact`."""
  return exact(prediction, row.answers)


def exact(prediction: str, answers: Sequence[str]) -> float:
  """Exact match: equal to one of the answers, except for case and surrounding space."""
  return float(any(answer.strip().lower() == prediction.strip().lower() for answer in answers))
