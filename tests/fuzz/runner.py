"""Runs cases, and says what became of each."""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable
import contextlib
import dataclasses
import pathlib
import re
import signal
import threading
import time
import traceback
import warnings

import numpy as np

ROOT = pathlib.Path(__file__).parents[2]
# An argument or several, or what is read, and then what is wrong with it.
NAMED = re.compile(r"(?s)([a-z][\w ]*:|the chat template|line \d+) .")
SECONDS = 30.0

Case = Callable[[np.random.Generator], None]


class HangError(Exception):
  """A case takes longer than `SECONDS`."""


@dataclasses.dataclass
class Report:
  """What became of the cases.

  Attributes:
    answered: cases with an answer that holds its promises.
    refused: cases with a clear error.
    findings: everything else: the case and what happened.
    slowest: seconds of the slowest case.
  """

  answered: int = 0
  refused: int = 0
  findings: list[str] = dataclasses.field(default_factory=list)
  slowest: float = 0.0

  @property
  def cases(self) -> int:
    """All of them."""
    return self.answered + self.refused + len(self.findings)


def run(name: str, case: Case, numbers: Iterable[int], seed: int = 0) -> Report:
  """Runs some cases of a subject.

  Args:
    name: of the subject.
    case: draws from a generator, calls the project and checks the answer with assertions.
    numbers: of the cases; each depends on the seed and its number alone.
    seed: of all cases.
  """
  report = Report()
  for number in numbers:
    began = time.perf_counter()
    try:
      with _time_limit(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        case(np.random.default_rng([seed, number]))
      report.answered += 1
    except (ValueError, OSError) as error:
      if _is_ours(error) and NAMED.match(str(error)):
        report.refused += 1
      else:
        report.findings.append(_describe(name, number, seed))
    except (Exception, HangError):
      report.findings.append(_describe(name, number, seed))
    report.slowest = max(report.slowest, time.perf_counter() - began)
  return report


def summary(reports: dict[str, Report]) -> str:
  """A table of the reports, and their findings."""
  lines = [f"{'subject':<14}{'cases':>8}{'answered':>10}{'refused':>9}{'findings':>10}{'slowest':>9}"]
  total = collections.Counter()
  for name, report in reports.items():
    counts = report.cases, report.answered, report.refused, len(report.findings)
    total.update(dict(enumerate(counts)))
    lines.append("{:<14}{:>8}{:>10}{:>9}{:>10}{:>8.1f}s".format(name, *counts, report.slowest))
  lines.append("{:<14}{:>8}{:>10}{:>9}{:>10}".format("all", *(total[column] for column in range(4))))
  return "\n".join(lines + [finding for report in reports.values() for finding in report.findings])


def _is_ours(error) -> bool:
  """Whether the project raised an error itself, and not code that it calls."""
  last = traceback.extract_tb(error.__traceback__)[-1].filename
  return any(pathlib.Path(last).is_relative_to(ROOT / package) for package in ("hawk_jax", "models", "experiments"))


def _describe(name, number, seed) -> str:
  return f"--subject={name} --first={number} --seed={seed}:\n{traceback.format_exc(limit=-4)}"


@contextlib.contextmanager
def _time_limit():
  """Raises HangError after `SECONDS`; only the main thread can be interrupted."""
  if threading.current_thread() is not threading.main_thread():
    yield
    return

  def stop(*_):
    raise HangError(f"takes longer than {SECONDS:g} seconds")

  before = signal.signal(signal.SIGALRM, stop)
  signal.setitimer(signal.ITIMER_REAL, SECONDS)
  try:
    yield
  finally:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)
