"""How long every setting takes, from the visual tokens of a picture to the answer."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from experiments.estimation import data
from experiments.estimation import outcomes
from experiments.running import environment
from experiments.running import journal
from experiments.speed import timing


def measure(
  path: pathlib.Path, conditions: dict[str, Any], batches: data.Batches, variants: Sequence[outcomes.Variant], rounds: int
) -> dict[str, float]:
  """Median milliseconds of one question of the first batch over that many rounds, by the name of the variant.

  Args:
    path: of the journal, from which an interrupted run resumes. Rounds on other machines do not count.
    conditions: what the journal depends on.
    batches: the questions.
    variants: what is timed.
    rounds: measurements of each.
  """
  machine = "; ".join((environment.device(), environment.processor(), environment.versions()))
  records = journal.Journal(path, conditions)
  own = lambda: [record["milliseconds"] for record in records.records if record["machine"] == machine]
  if (missing := rounds - len(own())) > 0:
    batch, clock = batches[0], timing.Clock()
    programs, parts = outcomes.programs(batches.model, batches.params, batch, variants, np.arange(len(batch.datasets)))
    for name, program in programs.items():
      clock.add(name, program)

    def record(seconds):
      total = lambda factors: 1e3 * sum(factor * seconds[name] for name, factor in factors.items())
      records.append({"machine": machine, "milliseconds": {name: total(factors) for name, factors in parts.items()}})

    clock.run(missing, record)
  records.close()
  return {variant.name: float(np.median([each[variant.name] for each in own()[:rounds]])) for variant in variants}
