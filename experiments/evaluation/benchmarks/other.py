"""Files whose name is no benchmark's: their columns say what kind of questions they ask."""

from __future__ import annotations

from collections.abc import Sequence

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import choice
from experiments.evaluation.benchmarks.questions import short_answer
from experiments.evaluation.benchmarks.questions import video_choice


def by_columns(name: str, columns: Sequence[str]) -> Benchmark:
  """A benchmark for a file, by its columns.

  Args:
    name: of the file, which becomes the title.
    columns: `candidates` make it multiple choice about videos, `A` and `B` multiple choice; otherwise questions are asked
      as they are written, and answers must match exactly.
  """
  if "candidates" in columns:
    return Benchmark(title=name, prompt=video_choice.prompt, score=video_choice.score)
  if {"A", "B"} <= set(columns):
    return Benchmark(title=name, prompt=choice.prompt, score=choice.score)
  return Benchmark(title=name, score=short_answer.score)
