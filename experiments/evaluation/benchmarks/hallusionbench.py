"""HallusionBench: yes-no questions about figures that deceive; the mean of three accuracies."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import statistics

from experiments.evaluation.benchmarks import metrics
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import yes_no
from experiments.evaluation.benchmarks.tsv import Table


def accuracies(indices: Sequence[str], subcategories: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """Percent of the answers (aAcc), of the figures (fAcc) and of the questions (qAcc) that are wholly right; their `average`.

  Args:
    indices: of the rows, `kind_subcategory_..._set_figure_question` with underscores between.
    subcategories: the rows' `l2-category`.
    scores: 1 or 0.
  """
  parts = [index.split("_") for index in indices]
  whole = lambda at: (
    100
    * statistics.fmean(
      metrics.all_right(((category, part[3], part[at]) for category, part in zip(subcategories, parts)), scores).values()
    )
  )
  result = {"aAcc": 100 * statistics.fmean(scores), "fAcc": whole(4), "qAcc": whole(5)}
  return {"average": statistics.fmean(result.values()), **result}


def aggregate(table: Table, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """`accuracies` of a table."""
  del predictions
  return accuracies([row.index for row in table.rows], table.cells("l2-category"), scores)


def check(table: Table) -> Table:
  """As `yes_no.check`.

  Raises:
    ValueError: an index that does not name set, figure and question.
  """
  for row in table.rows:
    if len(row.index.split("_")) < 6:
      raise ValueError(table.describe(row, "index", "must name set, figure and question, such as VD_figure_0_1_2_3"))
  return yes_no.check(table)


BENCHMARK = Benchmark(
  title="HallBench",
  pattern="HallusionBench",
  columns=("l2-category",),
  headline="average",
  prompt=functools.partial(yes_no.prompt, internvl=" Please answer yes or no." + yes_no.SHORTLY),
  score=yes_no.score,
  aggregate=aggregate,
  check=check,
)
