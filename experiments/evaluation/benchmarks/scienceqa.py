"""ScienceQA: multiple choice of school science, with hints."""

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import choice

BENCHMARK = Benchmark(title="ScienceQA", pattern=r"ScienceQA(_\w+)?", prompt=choice.prompt, score=choice.score)
