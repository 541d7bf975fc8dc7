"""Questions that are answered with yes or no, and mostly ask for it themselves."""

from __future__ import annotations

import dataclasses

from experiments.evaluation.benchmarks.questions import normalization
from experiments.evaluation.benchmarks.tsv import Row
from experiments.evaluation.benchmarks.tsv import Table

UNKNOWN = "Unknown"
SHORTLY = " Answer the question using a single word or phrase."


def prompt(row: Row, family: str, internvl: str = "") -> str:
  """The question as the file has it, and what VLMEvalKit adds for some families.

  Args:
    row: of the file.
    family: Qwen3-VL is asked once more for one of the two words.
    internvl: added for InternVL, of which each benchmark asks something else.
  """
  return row.fields["question"] + {"qwen3": " Please answer yes or no.", "internvl": internvl}.get(family, "")


def score(row: Row, prediction: str) -> float:
  """1 if the prediction gives the right one of the two words, else 0."""
  return float(extract(prediction) == row.answer)


def extract(prediction: str) -> str:
  """`Yes` or `No` if exactly one of the words occurs, else `Unknown`."""
  words = normalization.words_without_punctuation(prediction)
  found = [word for word in ("yes", "no") if word in words]
  return found[0].capitalize() if len(found) == 1 else UNKNOWN


def check(table: Table) -> Table:
  """The table; rows whose answer is neither `Yes` nor `No` have a problem."""
  return dataclasses.replace(table, rows=tuple(_checked(table, row) for row in table.rows))


def _checked(table, row):
  if row.problem is not None or row.answer in ("Yes", "No"):
    return row
  return dataclasses.replace(row, problem=table.describe(row, "answer", f"is {row.answer!r}, must be Yes or No"))
