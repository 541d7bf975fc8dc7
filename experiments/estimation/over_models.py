"""Means over models of what `experiments.compare` or `experiments.study` measured on each of them.

  python -m experiments.estimation.over_models --results_dir=experiments/results/unshaped_layer_0

Reads per_question.npz in the folder of every model, and writes models.md, models.csv and a figure beside these folders:
accuracies and paired differences with t intervals over models and questions, how much heads differ, and how far estimates of
head importance find the heads that are good alone.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from experiments.estimation import comparison
from experiments.estimation import per_question
from experiments.estimation import stability
from experiments.reporting import figures
from experiments.reporting import intervals
from experiments.running import command
from experiments.running import files
from experiments.running import remote
from hawk_jax import selectors

RESULTS = ("models.md", "models.csv", "models.png", "models.pdf")
# Rows that all others are compared with: HAWK without importance and with the paper's, and random tokens.
REFERENCES = ("uniform", "ablation", "random")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  results_dir: str = command.option("out/study/results", "Directory with a folder of results for each model.")
  model: tuple[str, ...] = command.option(
    (), f"Folder to read; repeat the flag for several. By default all that hold {per_question.FILE}."
  )


def run(settings: Settings) -> list[dict[str, Any]]:
  """Writes the files, and returns the table of `comparison.over_models`."""
  if not remote.is_remote(settings.results_dir) and not files.absolute(settings.results_dir).is_dir():
    raise ValueError(f"results_dir: there is no directory {settings.results_dir!r}")
  results = files.output_directory("results_dir", settings.results_dir, results=RESULTS)
  names = settings.model or sorted(path.parent.name for path in results.glob(f"*/{per_question.FILE}"))
  if len(names) < 2:
    raise ValueError(f"results_dir: {results} must hold the results of two or more models, got {', '.join(names) or 'none'}")
  found = {name: per_question.load(results / name / per_question.FILE) for name in names}
  first = found[names[0]]
  for name, each in found.items():
    if (each.questions, each.flags) != (first.questions, first.flags):
      raise ValueError(f"results_dir: {name} was measured with other questions or settings than {names[0]}")

  hits = {name: each.right for name, each in found.items()}
  table = comparison.over_models(hits, REFERENCES)
  title = (
    f"{len(next(iter(first.right.values())))} held-out questions{first.flags}; right answers in %, means over {len(names)} "
    f"models ({', '.join(names)}) with 95 % t intervals over models and questions; measured on "
    f"{' and '.join(dict.fromkeys(each.measured for each in found.values()))}."
  )
  text = comparison.markdown(table, title, REFERENCES, comparison.best_over_models(hits, REFERENCES), test=intervals.MIN_F)
  single = {name: stability.single_heads(own) for name, own in hits.items()}
  if all(map(len, single.values())):
    estimates = [row for row, weights in first.weights.items() if row != REFERENCES[0] and not np.isnan(weights).any()]
    estimates = [row for row in estimates if all(row in each.weights for each in found.values())]
    weights = {name: {row: each.weights[row] for row in estimates} for name, each in found.items()}
    text += "\n" + stability.over_models(weights, single)
  figure = figures.curves(comparison.panels(table, [*first.weights], [*selectors.SELECTORS]), "right answers, %")
  contents: tuple[str | bytes, ...] = (
    text,
    comparison.csv(table, REFERENCES),
    figures.encode(figure),
    figures.encode(figure, ".pdf"),
  )
  for file, content in zip(RESULTS, contents, strict=True):
    files.write(results / file, content)
  print(f"{text}\nwritten to {results}")
  return table


if __name__ == "__main__":
  command.main(Settings, run)
