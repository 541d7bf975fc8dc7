"""The paper's table: benchmark files, several selectors and ratios, official metrics.

  python -m experiments.evaluate --data=experiments/benchmark_files/digits.tsv --selector=hawk --selector=random

Leaves in --output_dir: table.md, plot.png, report.html (kept tokens of sampled questions), scores.json, predictions.jsonl,
manifest.json, and seconds.jsonl, which alone differs from run to run. Killed at any moment, the same command goes on where
it was and ends in the same files. Under --distributed each process holds the model on its own devices and answers its share
of the batches; all see one directory.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import time
from typing import Any

from absl import flags
from absl import logging
import jax
import tqdm

from experiments import command
from experiments import embedded
from experiments import journal
from experiments.benchmarks import prompts
from experiments.benchmarks import published
from experiments.benchmarks import suites
from experiments.benchmarks import tsv
from experiments.evaluation import answering
from experiments.evaluation import gallery
from experiments.evaluation import manifest
from experiments.evaluation import plan
from experiments.evaluation import results as results_lib
from hawk_jax import importance
from hawk_jax import scoring
from hawk_jax import selectors
from models import checkpoint
from models import load_model
from models import load_processor

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
_DATA = flags.DEFINE_multi_string("data", [], "TSV file in VLMEvalKit's layout; its name tells the benchmark.")
_SELECTORS = flags.DEFINE_multi_enum(
    "selector", ["hawk"], sorted({*selectors.SELECTORS, *selectors.IN_DECODER} - {*selectors.WITH_SCORES}),
    "Rules that pick tokens.")
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.4, 0.2, 0.1], "Shares of the visual tokens to keep, in (0, 1).")
_HEAD_IMPORTANCE = flags.DEFINE_string("head_importance", "uniform", "preset:NAME, uniform, or a JSON file.")
_NORMALIZATION = flags.DEFINE_enum("normalization", "l2", scoring.NORMALIZATIONS, "Of each head's scores.")
_RESOLUTION = flags.DEFINE_enum(
    "resolution", "model", list(plan.RESOLUTIONS),
    "The checkpoint's own limits, or the paper's: native (1280 to 16384 tokens of 28 x 28) or fixed1008 (1008 x 1008).")
_MIN_PIXELS = flags.DEFINE_integer("min_pixels", None, "Smaller pictures are scaled up to this; overrides --resolution.")
_MAX_PIXELS = flags.DEFINE_integer("max_pixels", None, "Larger ones are scaled down to this; overrides --resolution.")
_FPS = flags.DEFINE_float("fps", 2.0, "Frames a second that are taken from videos.")
_MAX_FRAMES = flags.DEFINE_integer("max_frames", 64, "Most frames of a video.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only so many rows of each file.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Questions a batch.", lower_bound=1)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "Most tokens of an answer.", lower_bound=1)
_SYSTEM_PROMPT = flags.DEFINE_string("system_prompt", "", "Replaces the chat template's own.")
_STRICT = flags.DEFINE_bool("strict", False, "Stop at the first row that cannot be asked; else it is reported and counts as "
                            "wrong.")
_GALLERY = flags.DEFINE_integer("gallery", 24, "Questions of each file in report.html.", lower_bound=0)
_DTYPE = flags.DEFINE_enum("dtype", None, list(checkpoint.DTYPES), "By default float32 on CPU, bfloat16 elsewhere.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/evaluate", "Where the results go; shared by the processes.")


def read_tables() -> tuple[list[tsv.Table], list[suites.Suite]]:
  """The data files and their benchmarks, checked before any work."""
  if not _DATA.value:
    raise ValueError("data: give at least one TSV file")
  tables, found = [], []
  for path in _DATA.value:
    table = tsv.read(path, limit=_LIMIT.value)
    suite = suites.find(table.name, table.columns)
    table = suites.checked(suite, table)
    if table.name in (other.name for other in tables):
      raise ValueError(f"data: two files are called {table.path.name}")
    for row in table.rows:
      report(row.problem)
    tables.append(table)
    found.append(suite)
  return tables, found


def report(problem: str | None) -> None:
  """Tells of a row that cannot be asked; fatal under --strict."""
  if problem and _STRICT.value:
    raise ValueError(problem)
  if problem:
    logging.warning("left out, counts as wrong: %s", problem)


def finished(directory: pathlib.Path, run: dict[str, Any]) -> dict[int, dict[str, Any]]:
  """By number, the batches that any process has finished.

  Raises:
    ValueError: the directory holds another run.
  """
  return {record["batch"]: record for path in sorted(directory.glob("*.jsonl")) for record in journal.read(path, run)}


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value, shared=True)
  tables, found = read_tables()
  settings = plan.settings(_SELECTORS.value, _KEEP_RATIOS.value)
  preset = plan.RESOLUTIONS[_RESOLUTION.value]
  options = answering.Options(
      batch_size=_BATCH_SIZE.value, max_new_tokens=_MAX_NEW_TOKENS.value, normalization=_NORMALIZATION.value,
      min_pixels=preset[0] if _MIN_PIXELS.value is None else _MIN_PIXELS.value,
      max_pixels=preset[1] if _MAX_PIXELS.value is None else _MAX_PIXELS.value,
      fps=_FPS.value, max_frames=_MAX_FRAMES.value, system_prompt=_SYSTEM_PROMPT.value)

  name, dtype = command.model_name(_MODEL.value), _DTYPE.value or command.default_dtype()
  directory = checkpoint.resolve(_MODEL.value)
  model_type = checkpoint.read_config(directory).get("model_type")
  mesh = command.mesh(jax.local_devices())
  model, params = load_model(str(directory), mesh=mesh, dtype=dtype)
  processor = load_processor(str(directory))
  head_importance = importance.load(_HEAD_IMPORTANCE.value, model.config.text.num_attention_heads)
  run = manifest.make({
      "model": name, "selectors": _SELECTORS.value, "keep_ratios": sorted(_KEEP_RATIOS.value),
      "head_importance": head_importance.tolist(), "limit": _LIMIT.value, "gallery": _GALLERY.value, "dtype": dtype,
      "mesh": mesh and dict(mesh.shape),
      **dataclasses.asdict(options)}, directory, [table.path for table in tables])

  batches = plan.batches(tables, options.batch_size, options.min_pixels, options.max_pixels)
  shown = gallery.sampled(tables, _GALLERY.value)
  answerer = answering.Answerer(model, params, processor, prompts.FAMILIES[model_type], head_importance, settings, options)
  answerer.check()
  entries = answer_all(answerer, output / "journal", run, batches, tables, found, shown)
  if jax.process_index():
    return

  results = results_lib.collect(tables, found, batches, entries, len(settings))
  table = results_lib.markdown(results, settings, published.rows(model_type, model.config.text, _RESOLUTION.value))
  about = f"{name}, head importance {_HEAD_IMPORTANCE.value}; dimmed tokens were removed"
  for file, content in {
      "manifest.json": json.dumps(run, indent=1, ensure_ascii=False) + "\n",
      "predictions.jsonl": results_lib.predictions(results, settings),
      "scores.json": results_lib.scores(results, settings),
      "table.md": table,
      "plot.png": results_lib.plot(results, settings),
      "report.html": gallery.page(results, settings, shown, model, processor, options, about),
      "seconds.jsonl": results_lib.seconds(entries),
  }.items():
    journal.write(output / file, content)
  asked = sum(len(table.rows) for table in tables)
  print(f"\n{asked} questions, {name}, head importance {_HEAD_IMPORTANCE.value}; {command.device()}, {command.today()}; "
        f"{command.versions()}\n\n{table}\nwritten to {output}: table.md, plot.png, report.html, scores.json, "
        "predictions.jsonl, manifest.json, seconds.jsonl")


def answer_all(answerer, directory, run, batches, tables, found, shown) -> dict[int, dict[str, Any]]:
  """Answers this process's share of the batches and waits for the others'; every batch's record by number."""
  index, count = jax.process_index(), jax.process_count()
  directory.mkdir(exist_ok=True)
  done = finished(directory, run)
  mine = [batch for batch in batches if batch.number % count == index]
  waiting = [batch for batch in mine if batch.number not in done]
  asked = lambda some: sum(len(batch.rows) for batch in some)
  prepare = lambda batch: answerer.prepare(batch, tables[batch.table], found[batch.table])
  records = journal.Journal(directory / f"{index:05d}.jsonl", run, apart=True)
  with tqdm.tqdm(total=asked(mine), initial=asked(mine) - asked(waiting), unit="question") as progress:
    for prepared in answering.prefetched(prepare, waiting):
      for problem in prepared.problems.values():
        report(problem)
      number = prepared.batch.table
      records.append(answerer.answer(prepared, tables[number], shown[number]))
      progress.update(len(prepared.batch.rows))
  records.close()
  while len(entries := finished(directory, run)) < len(batches):
    time.sleep(1)
  return entries


if __name__ == "__main__":
  command.run(main)
