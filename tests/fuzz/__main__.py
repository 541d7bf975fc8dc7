"""Runs random bad input; see `tests.fuzz`."""

from __future__ import annotations

import argparse
import logging
import resource
import sys

from absl import logging as absl_logging

from tests.fuzz import runner
from tests.fuzz import subjects


def main() -> int:
  parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=sys.modules["tests.fuzz"].__doc__)
  parser.add_argument("--cases", type=int, default=1000, help="How many, divided among the subjects.")
  parser.add_argument("--seed", type=int, default=0, help="Of all cases.")
  parser.add_argument("--first", type=int, default=0, help="Number of the first case of each subject.")
  parser.add_argument("--subject", action="append", choices=subjects.SUBJECTS, help="Only these; may be repeated.")
  arguments = parser.parse_args()
  logging.disable()
  absl_logging.set_verbosity(absl_logging.FATAL)
  names = arguments.subject or list(subjects.SUBJECTS)
  each = -(-arguments.cases // len(names))
  reports = {}
  for name in names:
    numbers = range(arguments.first, arguments.first + each)
    reports[name] = runner.run(name, subjects.SUBJECTS[name], numbers, arguments.seed)
  print(runner.summary(reports))
  print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GiB")
  return int(any(report.findings for report in reports.values()))


if __name__ == "__main__":
  sys.exit(main())
