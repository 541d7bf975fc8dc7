"""MME: yes-no questions, two for each picture; at most 2800 points."""

from __future__ import annotations

from collections.abc import Sequence
import functools
import statistics

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import yes_no
from experiments.evaluation.benchmarks.tsv import Table

PARTS = {
  "perception": ("OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene"),
  "reasoning": ("code_reasoning", "commonsense_reasoning", "numerical_calculation", "text_translation"),
}


def points(categories: Sequence[str], pictures: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """For each category accuracy plus accuracy+, the share of pictures whose two questions are both right.

  Args:
    categories: of every question.
    pictures: what picture each question is about; those with a single question do not count in accuracy+.
    scores: 1 or 0.

  Returns:
    `total` (at most 2800), the sums `perception` and `reasoning`, and each category's points (at most 200).
  """
  sums = {}
  for category in dict.fromkeys(categories):
    groups: dict[str, list[float]] = {}
    for group, picture, score in zip(categories, pictures, scores):
      if group == category:
        groups.setdefault(picture, []).append(score)
    plus = [group[0] * group[1] for group in groups.values() if len(group) > 1]
    sums[category] = 100 * (statistics.fmean(sum(groups.values(), [])) + (statistics.fmean(plus) if plus else 0.0))
  parts = {part: sum(sums.get(name, 0.0) for name in names) for part, names in PARTS.items()}
  return {"total": sum(parts.values()), **parts, **sums}


def aggregate(table: Table, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """`points` of a table."""
  del predictions
  return points(table.cells("category"), table.cells("image_path"), scores)


BENCHMARK = Benchmark(
  title="MME",
  pattern="MME",
  columns=("category", "image_path"),
  headline="total",
  prompt=functools.partial(yes_no.prompt, internvl=yes_no.SHORTLY),
  score=yes_no.score,
  aggregate=aggregate,
  check=yes_no.check,
)
