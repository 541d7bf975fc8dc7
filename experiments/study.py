"""The whole study of one model: every estimate of head importance, how far estimates agree, and what they are worth.

  python -m experiments.study --model=experiments/embedded_models/qwen2_5_vl --results_dir=experiments/results/qwen2_5_vl

Runs `experiments.head_importance` for every estimate, and `experiments.compare` with all of them. Interrupted at any moment,
the same command resumes where it stopped. `--results_dir` gets the tables and figures.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from experiments import compare
from experiments import head_importance
from experiments.digits import embedded
from experiments.estimation import estimators
from experiments.estimation import stability
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from hawk_jax import importance

# Settings of `experiments.head_importance` by the name of the estimate.
ESTIMATES: dict[str, dict[str, Any]] = {
  "ablation": {},
  "ablation, likelihood": {"metric": "log_likelihood"},
  "ablation, mask": {"mode": "mask_visual"},
  "ablation, all layers": {"scope": "all_layers"},
  "gradient": {"estimator": "gradient"},
  "attention mass": {"estimator": "attention_mass"},
  "learned": {"estimator": "learned"},
  "random weights": {"estimator": "random"},
  "ablation, seed 1": {"seed": 1},
  "ablation, seed 2": {"seed": 2},
}
# Ablation with other calibration examples. The stability is measured on these together with `ablation`.
REPEATED = ("ablation, seed 1", "ablation, seed 2")
# Calibration examples of each data set for which stability is measured.
SIZES = (10, 25, 50, 100, 150)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory.")
  questions: int = command.option(2000, "Held-out questions.", least=5)
  examples: int = command.option(100, "Calibration questions of each kind, for every estimate.", least=1)
  keep_ratio: tuple[float, ...] = command.option(
    (0.6, 0.4, 0.2, 0.1, 0.05), "Share of the visual tokens to keep; repeat the flag for several."
  )
  output_dir: str = command.option("out/study", "Directory for the files of all runs, in a folder of the model's name.")
  results_dir: str = command.option("out/study/results", "Directory for tables and figures.")


def run(settings: Settings) -> list[dict[str, Any]]:
  """Runs the study, writes the files, and returns the table of `experiments.compare`."""
  name = environment.model_name(settings.model)
  output = files.output_directory("output_dir", settings.output_dir) / name
  results = files.output_directory("results_dir", settings.results_dir)
  directories = {estimate: output / estimate.replace(",", "").replace(" ", "_") for estimate in ESTIMATES}
  common = dict(model=settings.model, mesh=settings.mesh)
  for estimate, options in ESTIMATES.items():
    print(f"== {estimate}", flush=True)
    head_importance.run(
      head_importance.Settings(**common, examples=settings.examples, output_dir=str(directories[estimate]), **options)
    )
  sources = {estimate: directory / "head_importance.json" for estimate, directory in directories.items()}
  print("== comparison", flush=True)
  table = compare.run(
    compare.Settings(
      **common,
      questions=settings.questions,
      keep_ratio=settings.keep_ratio,
      adaptive=("uniform", "learned"),
      importance=tuple(f"{estimate}={source}" for estimate, source in sources.items() if estimate not in REPEATED),
      output_dir=str(output / "compare"),
    )
  )

  weights = {estimate: importance.load(source) for estimate, source in sources.items()}
  ablations = [directories[estimate] for estimate in ("ablation", *REPEATED)]
  sizes = stability.over_sizes(*estimators.scores_of(_records(ablations)), SIZES)
  title = f"{name}, {settings.examples} calibration questions of each kind; {environment.device()}, {environment.today()}."
  text = f"{title}\n\n{stability.markdown(weights, sizes, single_heads(table))}"
  files.write(results / "importance.md", text)
  for file in ("compare.md", "compare.csv", "compare.png", "heads.png"):
    shutil.copyfile(output / "compare" / file, results / file)
  shutil.copyfile(directories["ablation"] / "head_importance.png", results / "ablation.png")
  for estimate in ("ablation", "learned"):
    shutil.copyfile(sources[estimate], results / f"{estimate}.json")
  print(text + f"\nwritten to {results}")
  return table


def single_heads(table: list[dict[str, Any]]) -> np.ndarray:
  """[H] accuracy of each head alone, at the larger of the shares at which single heads were measured.

  Args:
    table: of `experiments.compare`.
  """
  entries = [entry for entry in table if entry["row"].startswith("head ")]
  share = max(entry["kept"] for entry in entries)
  found = {int(entry["row"].removeprefix("head ")): entry["accuracy"] for entry in entries if entry["kept"] == share}
  return np.asarray([found[head] for head in range(len(found))])


def _records(directories: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
  """What `experiments.head_importance` recorded of its batches in some runs."""
  return [
    json.loads(line)
    for directory in directories
    for line in (directory / estimators.PerExample.journal).read_text().splitlines()[1:]
  ]


if __name__ == "__main__":
  command.main(Settings, run)
