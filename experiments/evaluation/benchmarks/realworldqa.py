"""RealWorldQA: multiple choice about photographs."""

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import choice

BENCHMARK = Benchmark(title="RealWorldQA", pattern="RealWorldQA", prompt=choice.prompt, score=choice.score)
