"""What a benchmark is: how it asks, how it scores an answer, and which score is its headline."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses

from experiments.evaluation.benchmarks import metrics
from experiments.evaluation.benchmarks.tsv import Row
from experiments.evaluation.benchmarks.tsv import Table

_GROUPS = ("split", "l2-category", "category")  # columns by whose values scores are reported too


def as_written(row: Row, family: str) -> str:
  """A prompt that is the question as the file has it."""
  del family
  return row.fields["question"]


def mean_score(table: Table, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """`overall`, the mean of the scores in percent, and the mean for every split and category."""
  del predictions
  return metrics.accuracy({name: table.cells(name) for name in _GROUPS if name in table.columns}, scores)


def unchanged(table: Table) -> Table:
  """The table: its rows need no further check."""
  return table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Benchmark:
  """A benchmark.

  Attributes:
    title: its name in tables.
    pattern: regular expression for the whole name of its files, without suffix; case does not matter.
    columns: what its scores need besides index, question and answer.
    headline: which of its scores is in table.md.
    prompt: `(row, family)` to the text that follows the pictures; family is `models.port.Port.prompt_family`.
    score: `(row, prediction)` to how right the prediction is, from 0 to 1.
    aggregate: `(table, predictions, scores)` to the benchmark's scores by name, among them the headline; predictions and
      scores are those of all rows, empty and 0 for rows that could not be asked.
    check: a table to the same table, in which rows that cannot be scored have a problem; raises ValueError where the whole
      file cannot be scored.
  """

  title: str
  pattern: str = "(?!)"
  columns: tuple[str, ...] = ()
  headline: str = "overall"
  prompt: Callable[[Row, str], str] = as_written
  score: Callable[[Row, str], float]
  aggregate: Callable[[Table, Sequence[str], Sequence[float]], dict[str, float]] = mean_score
  check: Callable[[Table], Table] = unchanged
