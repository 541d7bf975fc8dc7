"""Which benchmark a file is: how it is asked, how an answer is scored, and which figure stands in the table."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import re

from experiments.benchmarks import extraction
from experiments.benchmarks import metrics
from experiments.benchmarks.tsv import as_list
from experiments.benchmarks.tsv import describe
from experiments.benchmarks.tsv import Row
from experiments.benchmarks.tsv import Table


@dataclasses.dataclass(frozen=True)
class Suite:
  """A benchmark.

  Attributes:
    title: in tables.
    kind: of its questions: `yes_no`, `choice` (multiple choice), `circular` (all rotations must be right),
      `video_choice`, `short` (a word or phrase is asked for) or `plain` (as it stands).
    metric: of its answers: `mme`, `hallusion`, `pope`, `consensus`, `relaxed`, `exact` or `accuracy`.
    headline: the score that stands in the table.
    pattern: that the file's name must match.
    needs: columns beside index, question and answer.
  """

  title: str
  kind: str
  metric: str = "accuracy"
  headline: str = "overall"
  pattern: str = "(?!)"
  needs: tuple[str, ...] = ()


SUITES = (
    Suite("MME", "yes_no", "mme", "total", r"MME", ("category", "image_path")),
    Suite("HallBench", "yes_no", "hallusion", "average", r"HallusionBench", ("l2-category",)),
    Suite("POPE", "yes_no", "pope", "F1", r"POPE", ("category",)),
    Suite("TextVQA", "short", "consensus", pattern=r"TextVQA(_\w+)?"),
    Suite("ChartQA", "short", "relaxed", pattern=r"ChartQA(_(?!Pro)\w+)?"),
    Suite("OCRVQA", "short", "exact", pattern=r"OCRVQA(_\w+)?"),
    Suite("AI2D", "choice", pattern=r"AI2D(_\w+)?"),
    Suite("RealWorldQA", "choice", pattern=r"RealWorldQA"),
    Suite("ScienceQA", "choice", pattern=r"ScienceQA(_\w+)?"),
    Suite("CCBench", "circular", pattern=r"CCBench"),
    Suite("MMBench", "circular", pattern=r"MMBench(_\w+)?"),
    Suite("VideoMME", "video_choice", pattern=r"Video-?MME(_\w+)?", needs=("candidates",)),
    Suite("WorldSense", "video_choice", pattern=r"WorldSense(_\w+)?", needs=("candidates",)),
)


def find(name: str, columns: Sequence[str]) -> Suite:
  """The benchmark of a file, by its name, else by its columns.

  Args:
    name: of the file, without suffix.
    columns: its header.

  Raises:
    ValueError: the columns lack what the benchmark's metric needs, or have neither pictures nor videos.
  """
  if not {"image", "image_path", "video", "video_path"} & set(columns):
    raise ValueError(f"data: {name}.tsv, row 0 (the header): lacks a column image, image_path, video or video_path; it has "
                     f"{', '.join(columns)}")
  for suite in SUITES:
    if re.fullmatch(suite.pattern, name, re.IGNORECASE):
      if missing := [column for column in suite.needs if column not in columns]:
        raise ValueError(f"data: {name}.tsv, row 0 (the header): lacks {', '.join(missing)}, which {suite.title}'s score "
                         "needs")
      return suite
  if "candidates" in columns and "question" in columns:
    return Suite(name, "video_choice")
  return Suite(name, "choice" if {"A", "B"} <= set(columns) else "plain", "accuracy" if "A" in columns else "exact")


def checked(suite: Suite, table: Table) -> Table:
  """A table whose rows have what the benchmark's score needs; those that lack it have a problem.

  Raises:
    ValueError: indices that tell neither rotations nor figures apart, where the score goes by them.
  """
  rows = []
  for row in table.rows:
    answer = row.fields["answer"].strip()
    if suite.metric == "hallusion" and len(row.index.split("_")) < 6:
      raise ValueError(describe(table.path, row.number, row.index, "index", "must name set, figure and question, such as "
                                "VD_figure_0_1_2_3"))
    if suite.kind == "circular" and not row.index.isdecimal():
      raise ValueError(describe(table.path, row.number, row.index, "index", "must be a number, the same for all rotations "
                                "in its last six digits"))
    if suite.kind == "yes_no" and answer not in ("Yes", "No") and row.problem is None:
      row = dataclasses.replace(row, problem=describe(table.path, row.number, row.index, "answer",
                                                      f"is {answer!r}, must be Yes or No"))
    rows.append(row)
  return dataclasses.replace(table, rows=tuple(rows))


def extract(suite: Suite, row: Row, prediction: str) -> str:
  """What a prediction answers, in the form that the answer has."""
  if suite.kind == "yes_no":
    return extraction.yes_or_no(prediction)
  if suite.kind == "video_choice":
    return extraction.video_option(prediction)
  if suite.kind in ("choice", "circular"):
    return extraction.option(prediction, row.options)
  return prediction.strip()


def score(suite: Suite, row: Row, prediction: str) -> float:
  """How right a prediction is, 0 to 1."""
  answer = row.fields["answer"]
  if suite.metric in ("consensus", "relaxed", "exact"):
    return getattr(metrics, suite.metric)(prediction, as_list(answer))
  return float(extract(suite, row, prediction) == answer.strip())


def aggregate(suite: Suite, table: Table, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """The benchmark's scores, the headline first.

  Args:
    suite: of the table.
    table: with a row a prediction.
    predictions: of all rows, empty for those that could not be asked.
    scores: of `score`.
  """
  rows = table.rows
  column = lambda name: [row.fields.get(name, "") for row in rows]
  if suite.metric == "mme":
    result = metrics.mme(column("category"), column("image_path"), scores)
  elif suite.metric == "hallusion":
    result = metrics.hallusion([row.index for row in rows], column("l2-category"), scores)
  elif suite.metric == "pope":
    said = [extract(suite, row, prediction) for row, prediction in zip(rows, predictions)]
    result = metrics.pope(column("category"), column("answer"), said)
  else:
    if suite.kind == "circular":
      whole = metrics.circular([row.index for row in rows], scores)
      rows, scores = [row for row in rows if row.index in whole], list(whole.values())
    names = [name for name in ("split", "l2-category", "category") if name in table.columns]
    result = metrics.accuracy({name: [row.fields[name] for row in rows] for name in names}, scores)
  return {suite.headline: result[suite.headline], **result}
