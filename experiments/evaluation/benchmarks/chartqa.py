"""ChartQA: questions about charts; relaxed accuracy."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import short_answer
from experiments.evaluation.benchmarks.tsv import Row

_TOLERANCE = 0.05


def relaxed(prediction: str, answers: Sequence[str]) -> float:
  """Numbers within 5 % of an answer are right; other texts must equal an answer, except for case."""
  return float(any(_relaxed(prediction.strip(), answer) for answer in answers))


def _relaxed(said, answer):
  number, target = _number(said), _number(answer)
  if number is not None and target:
    return abs(number - target) / abs(target) <= _TOLERANCE
  return said.lower() == answer.lower()


def _number(text):
  try:
    return float(text.rstrip("%")) / 100 if text.endswith("%") else float(text)
  except ValueError:
    return None


def score(row: Row, prediction: str) -> float:
  """`relaxed` with a row's answers."""
  return relaxed(prediction, row.answers)


BENCHMARK = Benchmark(title="ChartQA", pattern=r"ChartQA(_(?!Pro)\w+)?", prompt=short_answer.prompt, score=score)
