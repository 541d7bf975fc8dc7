"""The paper's table: benchmark files, several selectors and keep ratios, official metrics.

  python -m experiments.evaluate --data=experiments/benchmark_files/digits.tsv --selector=hawk --selector=random

Writes to --output_dir: table.md, plot.png, report.html (kept tokens of sampled questions), scores.json, predictions.jsonl,
manifest.json, and seconds.jsonl, the only file that differs from run to run. Interrupted at any moment, the same command
resumes and ends in the same files. With --distributed each process holds the model on its own devices and answers its share
of the batches; all processes must see the output directory. docs/evaluation.md has more.
"""

from __future__ import annotations

from collections.abc import Mapping
import contextlib
import dataclasses
import json
import pathlib
from typing import Any

import jax

from experiments.digits import embedded
from experiments.estimation import sources
from experiments.evaluation import answering
from experiments.evaluation import asking
from experiments.evaluation import benchmarks
from experiments.evaluation import gallery
from experiments.evaluation import manifest
from experiments.evaluation import plan
from experiments.evaluation import published
from experiments.evaluation import results as results_lib
from experiments.evaluation.benchmarks import tsv
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.running import loading
from experiments.running import method
from experiments.running import processes
from experiments.running import watching
from hawk_jax import importance
from hawk_jax import selectors
from models import generation
from models import load_processor
from models import registry
from models import stages
from models.checkpoints import directory as directory_lib

RESULTS = (
  "table.md",
  "intervals.md",
  "plot.png",
  "plot.pdf",
  "report.html",
  "scores.json",
  "predictions.jsonl",
  "manifest.json",
  "seconds.jsonl",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, loading.Settings, watching.Settings, method.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  data: tuple[str, ...] = command.option(
    (), "TSV file in VLMEvalKit's layout; its name says which benchmark it is. Repeat the flag for several."
  )
  selector: tuple[str, ...] = command.option(
    ("hawk",),
    "Rule that picks tokens; repeat the flag for several.",
    choices=lambda: [name for name, selector in selectors.SELECTORS.items() if "scores" not in selector.needs],
  )
  keep_ratio: tuple[float, ...] = command.option(
    (0.4, 0.2, 0.1), "Share of the visual tokens to keep, in (0, 1); repeat the flag for several."
  )
  head_importance: str = command.option("uniform", "preset:NAME, uniform, or a JSON file.")
  importance: tuple[str, ...] = command.option((), sources.HELP)
  merge: tuple[str, ...] = command.option(
    ("none",), "What becomes of tokens that are not kept; repeat the flag for several.", choices=selectors.MERGES
  )
  stages: tuple[str, ...] = command.option(
    (), method.STAGES + " A row beside those of keep_ratio. Repeat the flag for several."
  )
  reference: str | None = command.option(
    None, "Row of table.md, such as hawk, that intervals.md compares every other row with, at the same share."
  )
  resolution: str = command.option(
    "model",
    "Limits on the size of pictures: the checkpoint's own, or the paper's native "
    "(1280 to 16384 tokens of 28 x 28 pixels) or fixed1008 (1008 x 1008 pixels). --min_pixels and --max_pixels go first.",
    choices=plan.RESOLUTIONS,
  )
  fps: float = command.option(2.0, "Frames per second to take from videos.")
  max_frames: int = command.option(64, "Most frames to take from a video.")
  limit: int | None = command.option(None, "Only the first so many rows of each file.", least=1)
  batch_size: int = command.option(16, "Questions per batch.", least=1)
  max_new_tokens: int = command.option(64, "Most tokens of an answer.", least=1)
  system_prompt: str = command.option("", "Replaces the chat template's own system prompt.")
  strict: bool = command.option(
    False, "Whether to stop at the first row that cannot be asked. Otherwise such rows are reported and count as wrong."
  )
  gallery: int = command.option(24, "Questions of each file in report.html.", least=0)
  allow_outside_paths: bool = command.option(
    False, "Whether image_path and video_path may name files outside the directory of the TSV file."
  )
  output_dir: str = command.option("out/evaluate", "Directory for the results, shared by all processes.")

  def __post_init__(self):
    super().__post_init__()
    if not self.data:
      raise ValueError("data: give at least one TSV file")
    rows = [setting.selector for setting in self.rows({name: "importance" for name in sources.parse(self.importance)})[1:]]
    if self.reference not in (None, *rows):
      raise ValueError(f"reference: got {self.reference!r}, the rows are {', '.join(dict.fromkeys(rows))}")

  def rows(self, importances: Mapping[str, str]) -> tuple[plan.Setting, ...]:
    """The settings that are compared.

    Args:
      importances: `Pruning.head_weights` of the importances that `importance` names.
    """
    importances = {"": "importance"} | dict(importances)
    shared = dict(importances=importances, merges=self.merge, stages=self.stages, make=self.pruning_of)
    return plan.settings(self.selector, self.keep_ratio, **shared)

  @property
  def options(self) -> answering.Options:
    """How questions are put to the model."""
    smallest, largest = plan.RESOLUTIONS[self.resolution]
    return answering.Options(
      batch_size=self.batch_size,
      max_new_tokens=self.max_new_tokens,
      min_pixels=smallest if self.min_pixels is None else self.min_pixels,
      max_pixels=largest if self.max_pixels is None else self.max_pixels,
      fps=self.fps,
      max_frames=self.max_frames,
      system_prompt=self.system_prompt,
    )


@dataclasses.dataclass(frozen=True)
class Evaluation:
  """What `run` returns.

  Attributes:
    directory: that holds the files.
    prunings: the settings that were compared, in the order of the results' answers, scores and totals.
    results: one per data file.
  """

  directory: pathlib.Path
  prunings: tuple[plan.Setting, ...]
  results: list[results_lib.Result]


def run(settings: Settings) -> Evaluation:
  """Answers all questions under all settings, and writes the files."""
  results = (*RESULTS, watching.RECORD)
  with files.resumable_directory("output_dir", settings.output_dir, shared=True, results=results) as output:
    return _run(settings, output)


def _run(settings: Settings, output: pathlib.Path) -> Evaluation:
  journals = files.output_directory("output_dir", str(output / "journal"), shared=True)
  options = settings.options
  tables, found = read_tables(settings)

  name, dtype = environment.model_name(settings.model), settings.parameter_dtype
  mesh = processes.mesh(settings.mesh, jax.local_devices())
  directory, model = registry.describe(settings.model, mesh)
  config, text = directory_lib.read_config(directory), model.config.text
  head_importance = importance.load(settings.head_importance, text.num_attention_heads)
  named = {row: sources.load(source, text.num_attention_heads) for row, source in sources.parse(settings.importance).items()}
  rows = settings.rows({row: each.head_weights for row, each in named.items()})
  prunings = tuple(plan.resolve(row, model) for row in rows)
  for one in prunings:
    generation.check_measures(model, one.pruning)
    if one.pruning.stages:
      print(f"stages: {one.pruning.schedule.describe(*stages.depths(model))}")
  processor = load_processor(str(directory))
  answering.check(model, processor, options)
  conditions = manifest.make(
    {
      "model": name,
      "selectors": settings.selector,
      "keep_ratios": sorted(settings.keep_ratio),
      "head_importance": head_importance.tolist(),
      "limit": settings.limit,
      "gallery": settings.gallery,
      "dtype": dtype,
      "mesh": mesh and dict(mesh.shape),
      "normalization": settings.normalization,
      **changed(settings, {row: each.record for row, each in named.items()}),
      **({"stages": sorted({one.pruning.stages for one in prunings[1:]} - {""})} if settings.stages else {}),
      **dataclasses.asdict(options),
    },
    directory,
    [table.path for table in tables],
  )
  batches = plan.batches(tables, options.batch_size, options.min_pixels, options.max_pixels)
  shown = gallery.sampled(tables, settings.gallery)
  asking.finished(journals, conditions, batches)  # refuses another run's before weights are loaded

  params = registry.load_params(directory, model, dtype)
  answerer = answering.Answerer(
    model,
    params,
    processor,
    registry.find(directory, config).prompt_family,
    head_importance,
    prunings,
    options,
    {row: each.weights for row, each in named.items()},
  )
  with contextlib.closing(watching.Watch(settings, output)) as watch:
    entries = asking.ask_all(answerer, journals, conditions, batches, tables, found, shown, settings.strict, watch)
    evaluation = Evaluation(output, prunings, results_lib.collect(tables, found, batches, entries, len(prunings)))
    watch.write(len(batches), **summarize(evaluation))
  if jax.process_index():
    return evaluation
  results = evaluation.results

  titles = [benchmark.title for benchmark in found]
  table = results_lib.markdown(results, prunings, published.rows(config["model_type"], text, settings.resolution, titles))
  about = f"{name}, head importance {settings.head_importance}"
  contents = (
    table,
    results_lib.paired(results, prunings, settings.reference),
    results_lib.plot(results, prunings),
    results_lib.plot(results, prunings, ".pdf"),
    gallery.page(
      results,
      prunings,
      shown,
      options.reader(processor),
      processor.media.as_seen,
      f"{about}; dimmed tokens were removed",
    ),
    results_lib.scores(results, prunings),
    results_lib.predictions(results, prunings),
    json.dumps(conditions, indent=1, ensure_ascii=False) + "\n",
    results_lib.seconds(entries),
  )
  for file, content in zip(RESULTS, contents, strict=True):
    files.write(output / file, content)
  asked = sum(len(table.rows) for table in tables)
  print(
    f"\n{asked} questions, {about}; {environment.device()}, {environment.today()}; {environment.versions()}\n\n{table}\n"
    f"written to {output}: {', '.join(RESULTS)}"
  )
  return evaluation


def changed(settings: Settings, importances: dict[str, Any]) -> dict[str, Any]:
  """What the answers depend on besides and differs from its default, so that older runs of the same settings resume."""
  found = {name: value for name, value in settings.changed.items() if name != "normalization"}
  found |= {"merge": settings.merge} if settings.merge != ("none",) else {}
  return found | ({"importances": importances} if importances else {})


def read_tables(settings: Settings) -> tuple[list[tsv.Table], list[Benchmark]]:
  """The data files and their benchmarks, checked before any work.

  Raises:
    ValueError: a file that cannot be read or scored; with `strict`, also a row that cannot be asked.
  """
  tables: list[tsv.Table] = []
  found = []
  for path in settings.data:
    table = tsv.read(path, limit=settings.limit, outside=settings.allow_outside_paths)
    benchmark = benchmarks.find(table.name, table.columns)
    table = benchmark.check(table)
    if table.name in (other.name for other in tables):
      raise ValueError(f"data: two files are called {table.path.name}")
    for row in table.rows:
      if row.problem:
        asking.report(row.problem, settings.strict)
    tables.append(table)
    found.append(benchmark)
  return tables, found


def summarize(evaluation: Evaluation) -> dict[str, Any]:
  """A row of `experiments.sweep`: the headline score of each benchmark under each setting.

  With one pruned setting, its scores are called by the benchmark alone.
  """
  settings, summary = evaluation.prunings, {}
  for title, result in zip(results_lib.titles(evaluation.results), evaluation.results):
    for setting, score in zip(settings, result.headlines):
      alone = len(settings) == 2 and setting.keep_ratio is not None
      summary[title if alone else f"{title}, {plan.name(setting)}"] = score
  return summary


if __name__ == "__main__":
  command.main(Settings, run)
