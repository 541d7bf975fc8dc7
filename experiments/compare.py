"""Compares head importances and selectors: accuracy against the share of visual tokens kept.

  python -m experiments.compare --importance=ablation=out/ablation/head_importance.json

Every setting answers the same held-out questions, so differences are paired. Pictures are encoded once for all settings.
Writes compare.md, compare.csv, compare.png, heads.png, and metrics.jsonl, the record of the run. Interrupted at any moment,
the same command resumes after the last batch that it finished.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

import numpy as np

from experiments.digits import embedded
from experiments.digits import task
from experiments.estimation import adaptive
from experiments.estimation import comparison
from experiments.estimation import data
from experiments.estimation import outcomes
from experiments.reporting import figures
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.running import journal
from experiments.running import processes
from experiments.running import watching
from hawk_jax import checks
from hawk_jax import importance
from hawk_jax import selectors
from hawk_jax.pruning import Pruning
from models import load_processor
from models import registry
from models import stages
from models.llava import clip_text

_BASELINE = "uniform"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, watching.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  data: str | None = command.option(
    None,
    "File with one JSON object per line: image, question, answer, dataset. By default the test split of the embedded task.",
  )
  questions: int = command.option(2000, "Questions of the embedded task, whose kinds take turns.", least=5)
  keep_ratio: tuple[float, ...] = command.option(
    (0.6, 0.4, 0.2, 0.1, 0.05), "Share of the visual tokens to keep; repeat the flag for several."
  )
  importance: tuple[str, ...] = command.option(
    (), "NAME=SOURCE adds a row of HAWK with a head importance, a JSON file or preset:NAME; repeat the flag for several."
  )
  selector: tuple[str, ...] = command.option(
    ("random", "fastv", "divprune", "hawk+dpp", "hawk+mmr", "qaprune"),
    "Rival rule that picks tokens, with uniform head weights where it uses HAWK's score; repeat the flag for several.",
    choices=lambda: selectors.SELECTORS,
  )
  clip: str | None = command.option(None, "CLIP checkpoint directory or hub id, for the selector cdpruner.")
  adaptive: tuple[str, ...] = command.option(
    (), "Row of HAWK that is also measured with an adaptive budget of the same mean; repeat the flag for several."
  )
  calibration_data: str | None = command.option(
    None,
    "File like --data that sets the threshold of adaptive budgets. By "
    "default 200 pictures of the embedded task's calibration split.",
  )
  heads: bool = command.option(True, "Whether to measure every head alone too, at the two smallest shares.")
  batch_size: int = command.option(40, "Questions per batch.", least=1)
  output_dir: str = command.option("out/compare", "Directory for the results.")

  def __post_init__(self):
    super().__post_init__()
    for ratio in self.keep_ratio:
      checks.share("keep_ratio", ratio)
    if unknown := [name for name in self.adaptive if name not in self.sources]:
      raise ValueError(f"adaptive: got {', '.join(unknown)}, the rows of HAWK are {', '.join(self.sources)}")
    if self.adaptive and self.data and not self.calibration_data:
      raise ValueError("calibration_data: adaptive budgets need it beside data")

  @property
  def sources(self) -> dict[str, str]:
    """Where each row of HAWK takes its head importance from.

    Raises:
      ValueError: a malformed `importance`.
    """
    found = {_BASELINE: "uniform"}
    for argument in self.importance:
      name, equals, source = argument.partition("=")
      if not equals or name in found or name in self.selector:
        raise ValueError(f"importance: got {argument!r}, must be NAME=SOURCE with a name that no other row has")
      found[name] = source
    return found

  @property
  def ratios(self) -> list[float]:
    """The shares below 1, descending."""
    return sorted({*self.keep_ratio} - {1.0}, reverse=True)


def run(settings: Settings) -> list[dict[str, Any]]:
  """Measures every setting, writes the files, and returns the table of `comparison.analyse`."""
  output, size = files.output_directory("output_dir", settings.output_dir), settings.batch_size
  directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
  heads = model.config.text.num_attention_heads
  rivals = [Pruning(selector=name) for name in settings.selector]
  for rival in rivals:
    stages.check(rival, model.config.text.num_hidden_layers)
  rows = {name: importance.load(source, heads) for name, source in settings.sources.items()}
  examples = (
    data.from_jsonl(settings.data)
    if settings.data
    else data.from_digits("test", task.KINDS, settings.questions // len(task.KINDS))
  )
  calibration = _calibration_examples(settings)
  clip = clip_text.load_for(rivals, settings.clip)
  processor, params = load_processor(str(directory)), registry.load_params(directory, model)
  fingerprint = data.params_fingerprint(params)
  _check_origins(settings.sources, calibration, fingerprint, {example.digest for example in examples})

  budgets = adaptive.calibrate(
    data.Batches(model, params, processor, calibration, size),
    {name: rows[name] for name in settings.adaptive},
    settings.ratios,
  )
  variants = _variants(settings, rows, budgets)
  conditions = {
    "model": fingerprint,
    "data": data.fingerprint(examples),
    "batch_size": size,
    "calibration": data.fingerprint(calibration),
    "clip": clip and data.params_fingerprint(clip.params),
    "importance": {name: weights.tolist() for name, weights in rows.items()},
    "settings": [variant.name for variant in variants],
  }
  title = (
    f"{len(examples)} held-out questions, {environment.model_name(settings.model)}; right answers in % with 95 % "
    f"bootstrap intervals; {environment.device()}, {environment.today()}; {environment.versions()}."
  )
  batches = data.Batches(model, params, processor, examples, size, clip)
  with contextlib.closing(watching.Watch(settings, output)) as watch:
    records = journal.Journal(output / "batches.jsonl", conditions, watch=watch)
    for number in records.remaining(len(batches), "batch"):
      batch = batches[number]
      seeds = number * size + np.arange(len(batch.datasets))
      found = {variant.name: outcomes.outcome(model, params, batch, variant, seeds) for variant in variants}
      records.append(
        {
          "right": {name: "".join(np.where(right, "1", "0")) for name, (right, _) in found.items()},
          "kept": {name: float(np.asarray(kept, np.float64).sum()) for name, (_, kept) in found.items()},
        },
        **{f"right/{name}": np.mean(right) for name, (right, _) in found.items()},
      )
    records.close()
    table = _report(output, records.records, variants, heads if settings.heads else 0, title)
    watch.write(len(batches), **summarize(table))
  return table


def check_apart(subject: str, pictures: set[str], test_pictures: set[str]) -> None:
  """Refuses calibration on test pictures.

  Args:
    subject: how the message begins.
    pictures: digests of the pictures that were used for calibration.
    test_pictures: digests.

  Raises:
    ValueError: there are test pictures among them.
  """
  if shared := len(pictures & test_pictures):
    raise ValueError(f"{subject} {shared} of the test pictures; calibrate on others")


def _check_origins(
  sources: dict[str, str], calibration: Sequence[data.Example], model: str, test_pictures: set[str]
) -> None:
  """Refuses what was calibrated on test pictures, or estimated with a model of another fingerprint."""
  for source in sources.values():
    origin = importance.details(source)
    estimated_with = origin.get("settings", {}).get("model", model)
    if estimated_with != model:
      raise ValueError(f"importance: {source} was estimated with the model {estimated_with}, this one is {model}")
    check_apart(f"importance: {source} was estimated on", {*origin.get("pictures", ())}, test_pictures)
  check_apart("calibration_data: holds", {example.digest for example in calibration}, test_pictures)


def _calibration_examples(settings: Settings) -> list[data.Example]:
  """Examples that set the thresholds of adaptive budgets."""
  if not settings.adaptive:
    return []
  if settings.calibration_data:
    return data.from_jsonl(settings.calibration_data)
  return data.from_digits("calibration", task.KINDS, 200 // len(task.KINDS), seed=1)


def _variants(
  settings: Settings, rows: dict[str, np.ndarray], budgets: dict[str, dict[float, Pruning]]
) -> list[outcomes.Variant]:
  """Every setting to measure.

  Args:
    settings: of the command.
    rows: the rows of HAWK, [H] head importance by name.
    budgets: of `adaptive.calibrate`, by row.
  """
  heads = np.eye(len(rows[_BASELINE]), dtype=np.float32) if settings.heads else []
  found = [outcomes.Variant("all tokens@1")]
  for ratio in settings.ratios:
    fixed = Pruning(keep_ratio=ratio)
    here = [(row, weights, fixed) for row, weights in rows.items()]
    here += [(f"{row}, adaptive", rows[row], adapted[ratio]) for row, adapted in budgets.items()]
    here += [(selector, None, dataclasses.replace(fixed, selector=selector)) for selector in settings.selector]
    if ratio in settings.ratios[-2:]:
      here += [(f"head {head}", weights, fixed) for head, weights in enumerate(heads)]
    found += [outcomes.Variant(f"{row}@{ratio:g}", weights, pruning) for row, weights, pruning in here]
  return found


def _report(
  output: pathlib.Path, records: list[dict[str, Any]], variants: Sequence[outcomes.Variant], heads: int, title: str
) -> list[dict[str, Any]]:
  """Writes tables and figures of all records, and returns the table."""
  names = [variant.name for variant in variants]
  hits = {name: np.asarray([bit == "1" for record in records for bit in record["right"][name]]) for name in names}
  kept = {name: sum(record["kept"][name] for record in records) / len(hits[name]) for name in names}
  table = comparison.analyse(hits, kept)
  text = comparison.markdown(table, title)
  files.write(output / "compare.md", text)
  files.write(output / "compare.csv", comparison.csv(table))
  figures.lines(output / "compare.png", *comparison.curves(table), "share of visual tokens kept", "right answers, %")
  if heads:
    figures.bars(
      output / "heads.png", comparison.heads(table, heads), "head of the first layer, alone", "share of right answers"
    )
  print(text)
  print(f"written to {output}")
  return table


def summarize(table: list[dict[str, Any]]) -> dict[str, Any]:
  """A row of `experiments.sweep`: the accuracy of every setting except single heads."""
  return {f"{row['row']} {row['kept']:g}": row["accuracy"] for row in table if not row["row"].startswith("head ")}


if __name__ == "__main__":
  command.main(Settings, run)
