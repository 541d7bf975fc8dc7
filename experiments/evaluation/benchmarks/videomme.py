"""Video-MME: multiple choice about videos."""

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import video_choice

BENCHMARK = Benchmark(
  title="VideoMME",
  pattern=r"Video-?MME(_\w+)?",
  columns=("candidates",),
  prompt=video_choice.prompt,
  score=video_choice.score,
)
