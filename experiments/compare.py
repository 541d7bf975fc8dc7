"""Compares head importances, selectors and merging: accuracy against the share of visual tokens kept.

  python -m experiments.compare --importance=ablation=out/ablation/head_importance.json

Every importance is crossed with every selector that it has an influence on, and every selector with every merge. Rows of
HAWK's own rule are called by their importance (`uniform`, `ablation`), other rules by their name, with uniform head weights
unless an importance follows (`hawk+mmr`, `hawk+mmr, ablation`). Every setting answers the same held-out questions, so
differences are paired. Pictures are encoded once for all settings. Writes compare.md, compare.csv, datasets.csv (accuracy by
data set), per_question.npz (which questions each setting answered right), compare.png and heads.png with a PDF of each,
transfer.md with --transfer, and metrics.jsonl, the record of the run. Interrupted at any moment, the same command resumes
after the last batch that it finished.

At last, every setting is timed on the first batch, from the visual tokens of its pictures to the answers, unless
--timing_rounds is 0: milliseconds.md and milliseconds.csv hold the times, and the front of accuracy against them.
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
from experiments.estimation import per_question
from experiments.estimation import sources
from experiments.estimation.crossing import adaptive_row
from experiments.estimation.crossing import BASELINE
from experiments.estimation.crossing import Crossing
from experiments.reporting import figures
from experiments.running import command
from experiments.running import compilation_cache
from experiments.running import environment
from experiments.running import files
from experiments.running import journal
from experiments.running import loading
from experiments.running import method
from experiments.running import processes
from experiments.running import watching
from experiments.speed import times
from hawk_jax import checks
from hawk_jax import selectors
from hawk_jax.pruning import Pruning
from models import generation
from models import load_processor
from models import registry
from models import stages
from models.llava import clip_text

TIMES = ("milliseconds.md", "milliseconds.csv")  # the only results that differ from run to run
RESULTS = (
  "compare.md",
  "compare.csv",
  "datasets.csv",
  per_question.FILE,
  "compare.png",
  "compare.pdf",
  "heads.png",
  "heads.pdf",
  *TIMES,
)
# Every rule that needs neither a CLIP nor videos.
RIVALS = (
  "random",
  "grid",
  "pool",
  "sepprune",
  "divprune",
  "hawk+dpp",
  "hawk+mmr",
  "hawk+tops",
  "tops",
  "hawk+scope",
  "scope",
  "coin",
  "zooprune",
  "dart",
  "visionzip",
  "qaprune",
  "fastv",
)
CALIBRATION = 200  # pictures that set the threshold of adaptive budgets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, loading.Settings, method.Settings, watching.Settings):
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
  importance: tuple[str, ...] = command.option((), sources.HELP)
  selector: tuple[str, ...] = command.option(
    RIVALS, "Rule to compare with HAWK's; repeat the flag for several.", choices=lambda: selectors.SELECTORS
  )
  merge: tuple[str, ...] = command.option(
    ("none",), "What becomes of tokens that are not kept; repeat the flag for several.", choices=selectors.MERGES
  )
  stages: tuple[str, ...] = command.option(
    (),
    method.STAGES + " Every other row is also measured at its mean share of tokens per decoder layer. Repeat the flag for "
    "several.",
  )
  reference: tuple[str, ...] = command.option(
    comparison.REFERENCES, "Row that every other row is compared with, at the same share; repeat the flag for several."
  )
  transfer: bool = command.option(
    False, "Whether to add rows with the weights that follow from each calibration set of each importance alone."
  )
  other_models: bool = command.option(
    False, "Whether importances may have been estimated with another model, to see whether they transfer."
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
  timing_rounds: int = command.option(5, "Number of measurements behind the time of every setting; 0: no times.", least=0)
  output_dir: str = command.option("out/compare", "Directory for the results.")

  def __post_init__(self):
    super().__post_init__()
    for ratio in self.keep_ratio:
      checks.share("keep_ratio", ratio)
    if not self.ratios:
      raise ValueError(f"keep_ratio: got {', '.join(map(str, self.keep_ratio)) or 'none'}, one or more must be below 1")
    for text in self.stages:
      self.pruning_of(stages=text)
    if unknown := [name for name in self.adaptive if name not in self.sources]:
      raise ValueError(f"adaptive: got {', '.join(unknown)}, the rows of HAWK are {', '.join(self.sources)}")
    if self.adaptive and self.data and not self.calibration_data:
      raise ValueError("calibration_data: adaptive budgets need it beside data")
    clip_text.check_given(self.rivals, self.clip)

  @property
  def sources(self) -> dict[str, str]:
    """Where each row of HAWK takes its head importance from.

    Raises:
      ValueError: a malformed `importance`, or one with a name that other rows have.
    """
    found = sources.parse(self.importance, taken=(BASELINE, comparison.WHOLE, *self.selector))
    if single := [name for name in found if name.startswith(comparison.SINGLE)]:
      raise ValueError(
        f"importance: got the name {single[0]!r}, must not begin with {comparison.SINGLE!r} as single heads do"
      )
    return {BASELINE: "uniform"} | found

  @property
  def rivals(self) -> list[Pruning]:
    """The rivals' settings of pruning, without a budget."""
    return [self.pruning_of(selector=name) for name in self.selector]

  @property
  def ratios(self) -> list[float]:
    """The shares below 1, descending."""
    return sorted({*self.keep_ratio} - {1.0}, reverse=True)

  def staged(self, model) -> dict[str, Pruning]:
    """The rows of `stages`, by name and mean share, with the layers that they have in a model.

    Raises:
      ValueError: stages that the model does not have.
    """
    found = {}
    for text in self.stages:
      schedule = stages.resolve(self.pruning_of(stages=text), model)
      share = round(schedule.mean_share(model.config.text.num_hidden_layers), 4)
      found[f"{text}@{share:g}"] = self.pruning_of(stages=str(schedule))
      print(f"stages: {schedule.describe(*stages.depths(model))}")
    return found


def run(settings: Settings) -> list[dict[str, Any]]:
  """Measures every setting, writes the files, and returns the table of `comparison.analyse`."""
  with files.resumable_directory("output_dir", settings.output_dir, results=(*RESULTS, watching.RECORD)) as output:
    return _run(settings, output)


def _run(settings: Settings, output: pathlib.Path) -> list[dict[str, Any]]:
  directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
  heads, size = model.config.text.num_attention_heads, settings.batch_size
  rivals = settings.rivals
  for one in (settings.pruning_of(), *rivals):
    stages.check(one, model)
    generation.check_measures(model, one)
  named = settings.sources
  if settings.transfer:
    named = {row: source for name, source in named.items() for row, source in _with_datasets(name, source)}
  rows = {name: sources.load(source, heads) for name, source in named.items()}
  crossing = Crossing(
    rows, settings.selector, settings.merge, settings.ratios, settings.staged(model), settings.heads, settings.pruning_of
  )
  _check_references(settings, crossing.variants({}))
  examples = (
    data.from_jsonl(settings.data)
    if settings.data
    else data.from_digits("test", task.KINDS, settings.questions // len(task.KINDS))
  )
  calibration = _calibration_examples(settings)
  test_pictures = {example.digest for example in examples}
  origins = sources.origins(settings.sources, test_pictures)
  sources.check_apart("calibration_data: holds", {example.digest for example in calibration}, test_pictures)
  processor = load_processor(str(directory))
  clip = clip_text.load(settings.clip, model) if settings.clip else None
  params = registry.load_params(directory, model, settings.parameter_dtype)
  fingerprint = data.params_fingerprint(params)
  for source, estimated_with in origins.items():
    if estimated_with != fingerprint and not settings.other_models:
      raise ValueError(
        f"importance: {source} was estimated with the model {estimated_with}, this one is {fingerprint}, with other "
        "parameters or of another dtype; --other_models allows it"
      )

  budgets = adaptive.calibrate(
    data.Batches(model, params, processor, calibration, size, pixels=settings.pixels),
    {name: rows[name] for name in settings.adaptive},
    settings.ratios,
    settings.pruning_of(),
  )
  variants = crossing.variants(budgets)
  conditions = {
    "model": fingerprint,
    "data": data.fingerprint(examples),
    "batch_size": size,
    "calibration": data.fingerprint(calibration),
    "clip": clip and data.params_fingerprint(clip.params),
    "importance": {name: each.record for name, each in rows.items()},
    "method": settings.method,
    "settings": [variant.name for variant in variants],
    **settings.pixels,
  }
  measured = f"{environment.device()}, {environment.today()}; {environment.versions()}"
  title = (
    f"{len(examples)} held-out questions, {environment.model_name(settings.model)}{settings.changed_flags}; right answers "
    f"in % with 95 % bootstrap intervals; {measured}."
  )
  measures = tuple(sorted({name for rival in rivals for name in rival.rule.measures}))
  batches = data.Batches(model, params, processor, examples, size, clip, measures, settings.pixels)
  with contextlib.closing(watching.Watch(settings, output)) as watch:
    records = _answer(journal.Journal(output / "batches.jsonl", conditions, watch=watch), batches, variants)
    hits = comparison.hits_of(records, [variant.name for variant in variants])
    weights = {name: each.weights if each.calibrated else np.full(heads, np.nan) for name, each in rows.items()}
    found = per_question.PerQuestion(data.fingerprint(examples), settings.changed_flags, measured, hits, weights)
    files.write(output / per_question.FILE, per_question.encode(found))
    table = _report(output, records, hits, [example.dataset for example in examples], settings, heads, title)
    watch.write(len(batches), **summarize(table))
  if settings.timing_rounds:
    compilation_cache.release_if_many()
    found = times.measure(output / "milliseconds.jsonl", conditions, batches, variants, settings.timing_rounds)
    _report_times(output, comparison.timed(table, found), settings)
  return table


def _answer(records: journal.Journal, batches: data.Batches, variants: Sequence[outcomes.Variant]) -> list[dict[str, Any]]:
  """Answers the questions of all batches that are not in the journal, and returns its records."""
  for number in records.remaining(len(batches), "batch"):
    batch = batches[number]
    seeds = number * batches.size + np.arange(len(batch.datasets))
    found = outcomes.measure(batches.model, batches.params, batch, variants, seeds)
    records.append(
      {
        "right": {name: "".join(np.where(right, "1", "0")) for name, (right, _) in found.items()},
        "kept": {name: float(np.asarray(kept, np.float64).sum()) for name, (_, kept) in found.items()},
      },
      **{f"right/{name}": np.mean(right) for name, (right, _) in found.items()},
    )
  records.close()
  return records.records


def _check_references(settings: Settings, variants: Sequence[outcomes.Variant]) -> None:
  """Refuses a reference that is none of the default ones and that no row has.

  Args:
    settings: of the command.
    variants: all but those of adaptive budgets.

  Raises:
    ValueError: such a reference.
  """
  rows = dict.fromkeys(name for variant in variants if (name := variant.name.rsplit("@", 1)[0]) != comparison.WHOLE)
  rows = [*rows, *map(adaptive_row, settings.adaptive)]
  if unknown := [name for name in settings.reference if name not in (*rows, *comparison.REFERENCES)]:
    rows = [row for row in rows if not row.startswith(comparison.SINGLE)]
    raise ValueError(f"reference: got {', '.join(unknown)}, the rows are {'; '.join(rows)}")


def _with_datasets(name: str, source: str) -> list[tuple[str, str]]:
  return [(name, source), *sources.by_dataset(name, source).items()]


def _calibration_examples(settings: Settings) -> list[data.Example]:
  """Examples that set the thresholds of adaptive budgets."""
  if not settings.adaptive:
    return []
  if settings.calibration_data:
    return data.from_jsonl(settings.calibration_data, "calibration_data")
  return data.from_digits("calibration", task.KINDS, CALIBRATION // len(task.KINDS), seed=1)


def _report(
  output: pathlib.Path,
  records: list[dict[str, Any]],
  hits: dict[str, np.ndarray],
  datasets: Sequence[str],
  settings: Settings,
  heads: int,
  title: str,
) -> list[dict[str, Any]]:
  """Writes tables and figures of all records, and returns the table.

  Args:
    output: directory.
    records: of the journal.
    hits: of `comparison.hits_of`.
    datasets: of each question.
    settings: of the command.
    heads: number of heads.
    title: of compare.md.
  """
  kept = {name: sum(record["kept"][name] for record in records) / len(found) for name, found in hits.items()}
  table = comparison.analyse(hits, kept, settings.reference)
  text = comparison.markdown(table, title, settings.reference, comparison.best(hits, settings.reference))
  files.write(output / "compare.md", text)
  files.write(output / "compare.csv", comparison.csv(table, settings.reference))
  by_dataset = comparison.by_dataset(hits, datasets)
  files.write(output / "datasets.csv", comparison.datasets_csv(by_dataset))
  panels = comparison.panels(table, [*settings.sources], settings.selector)
  figures.save(output / "compare.png", figures.curves(panels, "right answers, %"))
  if settings.heads:
    bars = comparison.heads(table, heads)
    label = f"head of {settings.scoring_layer}, alone"
    figures.save(output / "heads.png", figures.bars(bars, label, "share of right answers"))
  if settings.transfer:
    names = [row for name, source in settings.sources.items() for row in (name, *sources.by_dataset(name, source))]
    files.write(output / "transfer.md", comparison.transfer(by_dataset, names, settings.ratios))
  print(text)
  print(f"written to {output}")
  return table


def _report_times(output: pathlib.Path, entries: list[dict[str, Any]], settings: Settings) -> None:
  """Writes milliseconds.md and milliseconds.csv from entries of `comparison.timed`."""
  title = (
    f"Milliseconds of one question in a batch of {settings.batch_size}, from the visual tokens of its picture to the "
    f"answer: scores, selection, compaction and the decoder. {environment.model_name(settings.model)}; medians of "
    f"{settings.timing_rounds} rounds; {environment.device()}, {environment.today()}; {environment.versions()}."
  )
  for name, content in zip(TIMES, (comparison.timed_markdown(entries, title), comparison.timed_csv(entries)), strict=True):
    files.write(output / name, content)


def summarize(table: list[dict[str, Any]]) -> dict[str, Any]:
  """A row of `experiments.sweep`: the accuracy of every setting except single heads."""
  return {f"{row['row']} {row['kept']:g}": row["accuracy"] for row in table if not row["row"].startswith(comparison.SINGLE)}


if __name__ == "__main__":
  command.main(Settings, run)
