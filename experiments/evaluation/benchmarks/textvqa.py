"""TextVQA: reading text in pictures; the consensus of ten people's answers."""

from __future__ import annotations

from collections.abc import Sequence
import statistics

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import normalization
from experiments.evaluation.benchmarks.questions import short_answer
from experiments.evaluation.benchmarks.tsv import Row


def consensus(prediction: str, answers: Sequence[str]) -> float:
  """Agreement with the people who answered, each left out in turn: to agree with three of the others gives 1."""
  given, said = [normalization.vqa(answer) for answer in answers], normalization.vqa(prediction)
  same = given.count(said)
  return statistics.fmean(min(1.0, (same - (answer == said)) / 3) for answer in given)


def score(row: Row, prediction: str) -> float:
  """`consensus` with a row's answers."""
  return consensus(prediction, row.answers)


BENCHMARK = Benchmark(title="TextVQA", pattern=r"TextVQA(_\w+)?", prompt=short_answer.prompt, score=score)
