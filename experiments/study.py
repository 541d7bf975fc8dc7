"""The whole study of one model: every estimate of head importance, how far they agree, and what they are worth.

  python -m experiments.study --model=experiments/embedded_models/qwen2_5_vl --results_dir=experiments/results/qwen2_5_vl

Runs `experiments.head_importance` for every estimator and `experiments.compare` with all of them. Killed at any moment,
the same command goes on where it was. `--results_dir` gets the tables and plots.
"""

from __future__ import annotations

import csv
import json
import pathlib
import shlex
import shutil
import subprocess
import sys

from absl import flags
import numpy as np

from experiments import command
from experiments import embedded
from experiments import journal
from experiments import stability
from hawk_jax import importance

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory.")
_QUESTIONS = flags.DEFINE_integer("questions", 2000, "Held-out questions.", lower_bound=5)
_EXAMPLES = flags.DEFINE_integer("examples", 100, "Calibration questions of each kind, for every estimate.", lower_bound=1)
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.6, 0.4, 0.2, 0.1, 0.05], "Shares of the visual tokens to keep.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/study", "What the runs leave, under the model's name.")
_RESULTS_DIR = flags.DEFINE_string("results_dir", "out/study/results", "Tables and plots.")

ESTIMATES = {
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
SIZES = (10, 25, 50, 100, 150)


def run(app: str, repeated: dict[str, list] | None = None, **settings) -> None:
  """Runs an app of this folder in its own process.

  Raises:
    ValueError: it failed; what it said is above.
  """
  arguments = [f"--{name}={value}" for name, value in settings.items()]
  arguments += [f"--{name}={value}" for name, values in (repeated or {}).items() for value in values]
  print(shlex.join(["python", "-m", f"experiments.{app}", *arguments]), flush=True)
  if status := subprocess.run([sys.executable, "-m", f"experiments.{app}", *arguments], check=False).returncode:
    raise ValueError(f"experiments.{app}: ended with status {status}")


def records_of(directories: list[pathlib.Path]) -> tuple[np.ndarray, np.ndarray]:
  """Data sets [N] and scores [N, H] of all examples of some runs."""
  records = [json.loads(line) for directory in directories
             for line in (directory / "batches.jsonl").read_text().splitlines()[1:]]
  return (np.concatenate([record["datasets"] for record in records]),
          np.concatenate([record["scores"] for record in records]))


def single_heads(path: pathlib.Path, heads: int) -> np.ndarray:
  """[H] accuracy of each head alone at the second smallest share in a table of `experiments.compare`."""
  with open(path, newline="") as file:
    rows = [row for row in csv.DictReader(file) if row["row"].startswith("head ")]
  share = sorted({float(row["kept"]) for row in rows})[-1]
  found = {row["row"]: float(row["accuracy"]) for row in rows if float(row["kept"]) == share}
  return np.asarray([found[f"head {head}"] for head in range(heads)])


def main():
  name = command.model_name(_MODEL.value)
  output = command.output_directory("output_dir", _OUTPUT_DIR.value) / name
  results = command.output_directory("results_dir", _RESULTS_DIR.value)
  directories = {estimate: output / estimate.replace(",", "").replace(" ", "_") for estimate in ESTIMATES}
  for estimate, settings in ESTIMATES.items():
    run("head_importance", model=_MODEL.value, examples=_EXAMPLES.value, output_dir=directories[estimate], **settings)
  files = {estimate: directory / "head_importance.json" for estimate, directory in directories.items()}
  run("compare", {
      "importance": [f"{estimate}={file}" for estimate, file in files.items() if "seed" not in estimate],
      "adaptive": ["uniform", "learned"], "keep_ratio": _KEEP_RATIOS.value,
  }, model=_MODEL.value, questions=_QUESTIONS.value, output_dir=output / "compare")

  rows = {estimate: importance.load(str(file)) for estimate, file in files.items()}
  ablations = [estimate for estimate in ESTIMATES if estimate == "ablation" or "seed" in estimate]
  labels, scores = records_of([directories[estimate] for estimate in ablations])
  single = single_heads(output / "compare" / "compare.csv", len(rows["ablation"]))
  title = f"{name}, {_EXAMPLES.value} calibration questions of each kind; {command.device()}, {command.today()}.\n\n"
  text = title + stability.markdown(rows, stability.over_sizes(labels, scores, SIZES), single)
  journal.write(results / "importance.md", text)
  for file in ("compare.md", "compare.csv", "compare.png", "heads.png"):
    shutil.copyfile(output / "compare" / file, results / file)
  shutil.copyfile(directories["ablation"] / "head_importance.png", results / "ablation.png")
  for estimate in ("ablation", "learned"):
    shutil.copyfile(files[estimate], results / f"{estimate}.json")
  print(text + f"\nwritten to {results}")


if __name__ == "__main__":
  command.run(main)
