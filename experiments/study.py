"""The whole study of a model: every estimate of head importance, how far estimates agree, and what they are worth.

  python -m experiments.study --model=experiments/embedded_models/qwen2_5_vl --results_dir=experiments/results
  python -m experiments.study --model=out/a/model --model=out/b/model --model=out/c/model --results_dir=out/results
  python -m experiments.study --score_layer=2 --selector=fastv --output_dir=out/layer_2 --results_dir=out/layer_2/results

Runs `experiments.head_importance` for every estimate, and `experiments.compare` with all of them, crossed with every rule
and with merging. Interrupted at any moment, the same command resumes where it stopped. The tables and figures of a model get
a folder of its name in `--results_dir`. Several models are studied one after another, and
`experiments.estimation.over_models` makes a table of all of them; a command for each model and that one do the same in
parallel. Settings of the method, such as --score_layer, hold for the estimates that read them and for the comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
import dataclasses
import os
import pathlib
from typing import Any

import jax

from experiments import compare
from experiments import head_importance
from experiments.digits import embedded
from experiments.estimation import estimators
from experiments.estimation import over_models
from experiments.estimation import per_question
from experiments.estimation import stability
from experiments.running import command
from experiments.running import compilation_cache
from experiments.running import environment
from experiments.running import files
from experiments.running import journal
from experiments.running import loading
from experiments.running import method
from hawk_jax import importance
from hawk_jax import selectors

# Settings of `experiments.head_importance` by the name of the estimate.
ESTIMATES: dict[str, dict[str, Any]] = {
  "ablation": {},
  "ablation, likelihood": {"metric": "log_likelihood"},
  "ablation, mask": {"mode": "mask_visual"},
  "ablation, all layers": {"scope": "all_layers"},
  "gradient": {"estimator": "gradient"},
  "attention mass": {"estimator": "attention_mass"},
  "learned": {"estimator": "learned"},
  "question sensitivity": {"estimator": "question_sensitivity"},
  "random weights": {"estimator": "random"},
  "ablation, seed 1": {"seed": 1},
  "ablation, seed 2": {"seed": 2},
}
# Ablation with other calibration examples. The stability is measured on these together with `ablation`.
REPEATED = ("ablation, seed 1", "ablation, seed 2")
RESULTS = (*compare.RESULTS, "ablation.png", "ablation.pdf", "ablation.json", "learned.json", "importance.md")
# Weights that follow from each question, without calibration.
UNCALIBRATED = {"question mass": "question:mass", "question entropy": "question:entropy"}
# Calibration examples of each data set for which stability is measured.
SIZES = (10, 25, 50, 100, 150)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, loading.Settings, method.Settings):
  """Settings of the command."""

  model: tuple[str, ...] = command.option(
    (str(embedded.DIRECTORY / "qwen2_5_vl"),), "Checkpoint directory; repeat the flag for several."
  )
  questions: int = command.option(2000, "Held-out questions.", least=5)
  examples: int = command.option(100, "Calibration questions of each kind, for every estimate.", least=1)
  keep_ratio: tuple[float, ...] = command.option(
    (0.4, 0.2, 0.1, 0.05), "Share of the visual tokens to keep; repeat the flag for several."
  )
  selector: tuple[str, ...] = command.option(
    compare.RIVALS, "Rule to compare with HAWK's; repeat the flag for several.", choices=lambda: selectors.SELECTORS
  )
  merge: tuple[str, ...] = command.option(
    selectors.MERGES, "What becomes of tokens that are not kept; repeat the flag for several.", choices=selectors.MERGES
  )
  timing_rounds: int = command.option(5, "Number of measurements behind the time of every setting; 0: no times.", least=0)
  output_dir: str = command.option("out/study", "Directory for the files of all runs, in a folder of the model's name.")
  results_dir: str = command.option(
    "out/study/results", "Directory for tables and figures, in a folder of the model's name."
  )

  def __post_init__(self):
    super().__post_init__()
    names = [*map(environment.model_name, self.model)]
    if not names or len({*names}) != len(names):
      raise ValueError(f"model: got {', '.join(names) or 'none'}, must be one or more, with different names")


def run(settings: Settings) -> list[dict[str, Any]]:
  """Runs the study, writes the files, and returns the table of `experiments.compare`, or that of all models."""
  results = files.output_directory("results_dir", settings.results_dir)
  names = [*map(environment.model_name, settings.model)]
  for name, model in zip(names, settings.model, strict=True):
    print(f"==== {name}", flush=True)
    own = files.output_directory("results_dir", str(results / name), results=RESULTS)
    with files.resumable_directory("output_dir", os.path.join(settings.output_dir, name)) as output:
      table = _run(settings, model, output, own)
  if len(names) == 1:
    return table
  return over_models.run(over_models.Settings(results_dir=str(results), model=tuple(names)))


def _run(settings: Settings, model: str, output: pathlib.Path, results: pathlib.Path) -> list[dict[str, Any]]:
  """Everything about one model; returns the table of `experiments.compare`."""
  directories = {estimate: output / estimate.replace(",", "").replace(" ", "_") for estimate in ESTIMATES}
  sources = {estimate: directory / head_importance.RESULT for estimate, directory in directories.items()}
  compared = {estimate: source for estimate, source in sources.items() if estimate not in REPEATED}
  common = dict(model=model, mesh=settings.mesh, **settings.loading)
  read_by = lambda options: {
    name: value
    for name, value in settings.method.items()
    if name in estimators.find(options.get("estimator", "ablation")).options
  }
  # What an estimator does not read, it would refuse. All settings are made, and so checked, before the first run.
  estimates = {
    estimate: head_importance.Settings(
      **common, **read_by(options), **options, examples=settings.examples, output_dir=str(directories[estimate])
    )
    for estimate, options in ESTIMATES.items()
  }
  comparing = compare.Settings(
    **common,
    **settings.method,
    questions=settings.questions,
    keep_ratio=settings.keep_ratio,
    selector=settings.selector,
    adaptive=("uniform", "learned"),
    importance=tuple(f"{row}={source}" for row, source in {**compared, **UNCALIBRATED}.items()),
    merge=settings.merge,
    reference=over_models.REFERENCES,
    timing_rounds=settings.timing_rounds,
    output_dir=str(output / "compare"),
  )
  for estimate, estimation in estimates.items():
    print(f"== {estimate}", flush=True)
    compilation_cache.release_if_many()
    head_importance.run(estimation)
  print("== comparison", flush=True)
  jax.clear_caches()  # hundreds of settings need most of the memory maps that a process may have
  table = compare.run(comparing)

  single = stability.single_heads(per_question.load(output / "compare" / per_question.FILE).right)
  weights = {estimate: importance.load(source) for estimate, source in sources.items()}
  ablations = [directories[estimate] for estimate in ("ablation", *REPEATED)]
  sizes = stability.over_sizes(*estimators.scores_of(_records(ablations)), SIZES)
  name = environment.model_name(model)
  title = f"{name}, {settings.examples} calibration questions of each kind; {environment.device()}, {environment.today()}."
  text = f"{title}\n\n{stability.markdown(weights, sizes, single)}"
  untimed = [file for file in compare.RESULTS if settings.timing_rounds or file not in compare.TIMES]
  copied = {file: output / "compare" / file for file in untimed}
  copied |= dict(zip(("ablation.png", "ablation.pdf"), (directories["ablation"] / file for file in head_importance.FIGURES)))
  copied |= {"ablation.json": sources["ablation"], "learned.json": sources["learned"]}
  for file, source in copied.items():
    files.write(results / file, source.read_bytes())
  files.write(results / RESULTS[-1], text)
  print(text + f"\nwritten to {results}")
  return table


def _records(directories: Iterable[pathlib.Path]) -> list[dict[str, Any]]:
  """What `experiments.head_importance` recorded of its batches in some runs."""
  return [record for directory in directories for record in journal.read(directory / estimators.PerExample.journal)]


if __name__ == "__main__":
  command.main(Settings, run)
