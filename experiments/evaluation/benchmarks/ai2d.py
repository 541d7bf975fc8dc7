"""AI2D: multiple choice about diagrams of school science."""

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import choice

BENCHMARK = Benchmark(title="AI2D", pattern=r"AI2D(_\w+)?", prompt=choice.prompt, score=choice.score)
