"""The benchmarks: each is one file here and one line in `BENCHMARKS`."""

from __future__ import annotations

from collections.abc import Sequence
import re

from experiments.evaluation.benchmarks import ai2d
from experiments.evaluation.benchmarks import ccbench
from experiments.evaluation.benchmarks import chartqa
from experiments.evaluation.benchmarks import hallusionbench
from experiments.evaluation.benchmarks import mmbench
from experiments.evaluation.benchmarks import mme
from experiments.evaluation.benchmarks import ocrvqa
from experiments.evaluation.benchmarks import other
from experiments.evaluation.benchmarks import pope
from experiments.evaluation.benchmarks import realworldqa
from experiments.evaluation.benchmarks import scienceqa
from experiments.evaluation.benchmarks import textvqa
from experiments.evaluation.benchmarks import videomme
from experiments.evaluation.benchmarks import worldsense
from experiments.evaluation.benchmarks.benchmark import Benchmark

# The first whose pattern fits a file's name is taken.
BENCHMARKS: list[Benchmark] = [
  ai2d.BENCHMARK,
  ccbench.BENCHMARK,
  chartqa.BENCHMARK,
  hallusionbench.BENCHMARK,
  mmbench.BENCHMARK,
  mme.BENCHMARK,
  ocrvqa.BENCHMARK,
  pope.BENCHMARK,
  realworldqa.BENCHMARK,
  scienceqa.BENCHMARK,
  textvqa.BENCHMARK,
  videomme.BENCHMARK,
  worldsense.BENCHMARK,
]

_PICTURES = ("image", "image_path", "video", "video_path")


def find(name: str, columns: Sequence[str]) -> Benchmark:
  """The benchmark of a file, by its name, else by its columns.

  Args:
    name: of the file, without suffix.
    columns: its header.

  Raises:
    ValueError: the columns lack what the benchmark's scores need, or hold neither pictures nor videos.
  """
  if not set(_PICTURES) & set(columns):
    raise ValueError(
      f"data: {name}.tsv, row 0 (the header): lacks a column image, image_path, video or video_path; it has "
      f"{', '.join(columns)}"
    )
  for benchmark in BENCHMARKS:
    if re.fullmatch(benchmark.pattern, name, re.IGNORECASE):
      if missing := [column for column in benchmark.columns if column not in columns]:
        raise ValueError(
          f"data: {name}.tsv, row 0 (the header): lacks {', '.join(missing)}, which {benchmark.title}'s score needs"
        )
      return benchmark
  return other.by_columns(name, columns)
