"""Estimates offline how much each attention head of the first layer matters for vision.

  python -m experiments.head_importance --estimator=ablation
  python -m experiments.head_importance --estimator=gradient --model=Qwen/Qwen2.5-VL-7B-Instruct --data=calibration.jsonl

Writes head_importance.json (the weights, each head's score on each data set, settings, hashes, versions), which
`--head_importance=FILE` of the other commands and `hawk_jax.importance.load` read, head_importance.png, and metrics.jsonl,
the record of the run. Interrupted at any moment, the same command resumes after the last batch or step that it finished.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

from absl import logging
import numpy as np

from experiments.digits import embedded
from experiments.digits import task
from experiments.estimation import data
from experiments.estimation import estimators
from experiments.reporting import figures
from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.running import journal
from experiments.running import loading
from experiments.running import processes
from experiments.running import watching
from hawk_jax import checks
from hawk_jax import importance
from models import load_processor
from models import registry

RESULT, FIGURES = "head_importance.json", ("head_importance.png", "head_importance.pdf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, loading.Settings, estimators.Settings, watching.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  estimator: str = command.option("ablation", f"One of {estimators.names()}.")
  data: str | None = command.option(
    None,
    "File with one JSON object per line: image, question, answer, dataset. By default "
    "the calibration split of the embedded task.",
  )
  dataset: tuple[str, ...] = command.option(
    task.KINDS, "Kind of question of the embedded task; repeat the flag for several.", choices=task.KINDS
  )
  examples: int | None = command.option(
    None,
    "Calibration questions of each data set; by default 200 of each kind of the embedded task, and all of a file.",
    least=1,
  )
  batch_size: int = command.option(20, "Examples per batch.", least=1)
  output_dir: str = command.option("out/head_importance", "Directory for the results.")

  def __post_init__(self):
    super().__post_init__()
    estimators.check_read(self.estimator, self)


def run(settings: Settings) -> np.ndarray:
  """Estimates, writes the files, and returns the weights, [H] float32."""
  with files.resumable_directory("output_dir", settings.output_dir, results=(RESULT, *FIGURES, watching.RECORD)) as output:
    return _run(settings, output)


def _run(settings: Settings, output: pathlib.Path) -> np.ndarray:
  estimator = estimators.find(settings.estimator)
  directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
  heads = model.config.text.num_attention_heads
  checks.whole("score_layer", settings.score_layer, 0, model.config.text.num_hidden_layers - 1)
  origin = {
    "estimator": settings.estimator,
    "model_name": environment.model_name(settings.model),
    "heads": heads,
    "seed": settings.seed,
  }
  if isinstance(estimator, estimators.Fixed):
    found, examples = estimator.estimate(heads, settings), []
  else:
    examples = (
      data.first(data.from_jsonl(settings.data), settings.examples)
      if settings.data
      else data.from_digits("calibration", settings.dataset, settings.examples or 200, settings.seed)
    )
    processor = load_processor(str(directory))
    params = registry.load_params(directory, model, settings.parameter_dtype)
    origin |= {
      "model": data.params_fingerprint(params),
      "data": data.fingerprint(examples),
      "examples": len(examples),
      "batch_size": settings.batch_size,
      **settings.pixels,
      **{name: getattr(settings, name) for name in estimator.options},
    }
    batches = data.Batches(model, params, processor, examples, settings.batch_size, pixels=settings.pixels)
    with contextlib.closing(watching.Watch(settings, output)) as watch:
      records = journal.Journal(output / estimator.journal, origin, watch=watch)
      found = estimator.estimate(batches, settings, records)
      records.close()
      watch.write(len(records.records), **summarize(found.weights))
  _write(output, found, origin, examples, f"head of {settings.scoring_layer}")
  return found.weights


def _write(
  output: pathlib.Path, found: estimators.Estimate, origin: dict[str, Any], examples: Sequence[data.Example], label: str
) -> None:
  """Writes the files, of which the figure has a label on its axis, and prints the table."""
  weights, scores, skipped = found.weights, found.scores, estimators.skipped(found.scores)
  with files.replacing(output / RESULT) as path:
    importance.save(
      path,
      weights,
      settings=origin,
      versions=environment.versions(),
      scores={dataset: values.tolist() for dataset, values in scores.items()},
      skipped=skipped,
      pictures=sorted({example.digest for example in examples}),
    )
  bars = {dataset: values / np.abs(values).max() if values.any() else values for dataset, values in scores.items()}
  bars["head importance"] = weights / weights.max()
  figures.save(output / FIGURES[0], figures.bars(bars, label, "share of the largest"))
  for dataset in skipped:
    logging.warning("skipped %s: every head has the same score", dataset)
  columns = {**scores, "importance": weights}
  rows = [[head, *(f"{values[head]:.4f}" for values in columns.values())] for head in range(len(weights))]
  print("\n".join(tables.table(["head", *columns], rows, left=0)))
  print(f"written to {output}: {', '.join([RESULT, *FIGURES])}")


def summarize(weights: np.ndarray) -> dict[str, Any]:
  """A row of `experiments.sweep`: the weight of every head."""
  return {f"head {head}": float(weight) for head, weight in enumerate(weights)}


if __name__ == "__main__":
  command.main(Settings, run)
