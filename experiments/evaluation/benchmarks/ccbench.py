"""CCBench: questions about Chinese culture, asked and scored as MMBench's."""

import dataclasses

from experiments.evaluation.benchmarks import mmbench

BENCHMARK = dataclasses.replace(mmbench.BENCHMARK, title="CCBench", pattern="CCBench")
