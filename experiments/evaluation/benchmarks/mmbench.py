"""MMBench: multiple choice, asked with every rotation of the options; a question counts only if all of them are right."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from experiments.evaluation.benchmarks import metrics
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.benchmark import mean_score
from experiments.evaluation.benchmarks.questions import choice
from experiments.evaluation.benchmarks.tsv import Table

_LONGEST = 18  # digits of an index
_ROTATION = 10**6  # rotations of a question have indices that differ by multiples of it; the question itself is below it


def circular(indices: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """For the index of each question 1 if all of its rotations are right, else 0.

  Args:
    indices: numbers; all rotations of a question have the same last six digits, and the question itself has only these.
    scores: 1 or 0.
  """
  whole = metrics.all_right((int(index) % _ROTATION for index in indices), scores)
  return {index: whole[int(index) % _ROTATION] for index in indices if int(index) < _ROTATION}


def aggregate(table: Table, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """The mean over the questions, by `circular`."""
  del predictions
  right = circular([row.index for row in table.rows], scores)
  questions = dataclasses.replace(table, rows=tuple(row for row in table.rows if row.index in right))
  return mean_score(questions, (), list(right.values()))


def check(table: Table) -> Table:
  """The table.

  Raises:
    ValueError: an index that is no number, or rotations without a question.
  """
  for row in table.rows:
    if not row.index.isdecimal() or len(row.index) > _LONGEST:
      raise ValueError(
        table.describe(
          row, "index", f"must be a number of at most {_LONGEST} digits, the same for all rotations in its last six digits"
        )
      )
  if not any(int(row.index) < _ROTATION for row in table.rows):
    raise ValueError(
      f"data: {table.path}: column index: has no number below {_ROTATION}, all rows are rotations of a question"
    )
  return table


BENCHMARK = Benchmark(
  title="MMBench", pattern=r"MMBench(_\w+)?", prompt=choice.prompt, score=choice.score, aggregate=aggregate, check=check
)
