"""OCRVQA: questions about book covers; exact match."""

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import short_answer

BENCHMARK = Benchmark(title="OCRVQA", pattern=r"OCRVQA(_\w+)?", prompt=short_answer.prompt, score=short_answer.score)
