"""The paper's efficiency table: seconds, key/value cache and memory of a whole data set, unpruned and pruned.

  python -m experiments.speed.efficiency                                  # digits.tsv on an embedded model
  python -m experiments.speed.efficiency --preset=cpu --pictures=200 --side=1008 --dtype=bfloat16

Every picture is answered alone, as in the paper, with every share of its visual tokens in turn. Vision, scoring, language
and decoding are measured. Reading the picture is not, and neither is compilation: a picture whose shapes are new is answered
once before it counts. An interrupted run resumes. Without --mesh, one device is used. Prints a Markdown table; writes
efficiency.json.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments.digits import embedded
from experiments.evaluation import benchmarks
from experiments.evaluation.benchmarks import tsv
from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.running import journal
from experiments.speed import cases
from experiments.speed import flops
from experiments.speed import memory
from hawk_jax.pruning import Pruning
from models import generation
from models import load_processor
from models import registry
from models.checkpoints import directory as directory_lib
from models.checkpoints import params as params_lib

_ROOT = pathlib.Path(__file__).parents[1]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(cases.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  data: str = command.option(str(_ROOT / "benchmark_files" / "digits.tsv"), "TSV file in VLMEvalKit's layout.")
  preset: str | None = command.option(
    None, "A configuration in experiments/configs with random weights, on pictures of noise, instead of model and data."
  )
  pictures: int = command.option(200, "Number of pictures of a preset.", least=1)
  side: int = command.option(1008, "Height and width of a preset's pictures in pixels.", least=1)
  text_tokens: int = command.option(44, "Number of text tokens in a preset's prompts.", least=4)
  dtype: str | None = command.option(
    None, "Dtype of parameters and computation; by default float32 on CPU, bfloat16 elsewhere.", choices=params_lib.DTYPES
  )
  keep_ratio: tuple[float, ...] = command.option((0.4, 0.2), cases.KEEP_RATIO)
  max_new_tokens: int = command.option(16, "Number of tokens of every answer.", least=1)
  limit: int | None = command.option(None, "Only the first so many pictures.", least=1)
  output_dir: str = command.option("out/efficiency", "Directory for efficiency.json and the journal.")


class _Questions:
  """Arrays of every question, made when they are needed."""

  def __init__(self, settings: Settings, model, directory: pathlib.Path):
    self._settings, self._model = settings, model
    if settings.preset:
      self.name, self.count = f"{settings.pictures} pictures of {settings.side} x {settings.side}", settings.pictures
    else:
      self._table = tsv.read(settings.data)
      self._benchmark = benchmarks.find(self._table.name, self._table.columns)
      self._family = registry.find(directory, directory_lib.read_config(directory)).prompt_family
      self._processor = load_processor(str(directory))
      self.name, self.count = self._table.name, len(self._table.rows)
    self.count = min(self.count, settings.limit or self.count)

  def __getitem__(self, number: int) -> dict[str, np.ndarray]:
    settings = self._settings
    if settings.preset:
      size = (settings.side, settings.side)
      return self._model.synthetic_batch([size], settings.text_tokens, np.random.default_rng(number))
    row = self._table.rows[number]
    return self._processor(images=[self._table.pictures(row)], prompts=[self._benchmark.prompt(row, self._family)])


def measure(model, params, arrays: dict[str, np.ndarray], pruning: Pruning, max_new_tokens: int) -> dict[str, float]:
  """Answers one prompt.

  Args:
    model: a port.
    params: its parameters.
    arrays: of the prompt, of a processor.
    pruning: the settings.
    max_new_tokens: of the answer.

  Returns:
    Seconds, tokens in the prompt after pruning, and peak bytes of the process and the device.
  """
  inputs = model.pack(**arrays)
  plan = generation.make_plan(model, inputs.prompt, pruning)
  kept: Any = inputs.prompt.visual_counts if plan is None or plan.counts is None else plan.counts
  seconds = []

  def answer():
    began = time.perf_counter()
    jax.block_until_ready(
      generation.generate(model, params, inputs, max_new_tokens=max_new_tokens, **dataclasses.asdict(pruning))
    )
    seconds.append(time.perf_counter() - began)

  peak = memory.peak(answer)
  return {"seconds": seconds[0], "tokens": int(inputs.prompt.text_counts[0] + kept[0]), **peak}


def run(settings: Settings) -> list[dict[str, Any]]:
  """Measures what is missing, writes efficiency.json, and returns a row per ratio."""
  output = files.output_directory("output_dir", settings.output_dir)
  dtype = settings.dtype or environment.default_dtype()
  directory = _ROOT / "configs" / settings.preset if settings.preset else directory_lib.resolve(settings.model)
  model = registry.build(directory, directory_lib.read_config(directory), settings.make_mesh())
  questions = _Questions(settings, model, directory)
  origin = {**dataclasses.asdict(settings), "limit": questions.count, "dtype": dtype, "device": environment.device()}
  del origin["output_dir"]
  records = journal.Journal(output / "journal.jsonl", origin)
  prunings = [Pruning(keep_ratio=ratio) for ratio in settings.ratios]
  if len(records.records) < questions.count:
    params = params_lib.init(model, dtype=dtype) if settings.preset else registry.load_params(directory, model, dtype)
    seen: set[tuple] = set()
    for number in records.remaining(questions.count, "picture"):
      arrays = questions[number]
      answers = lambda arrays=arrays: [measure(model, params, arrays, one, settings.max_new_tokens) for one in prunings]
      shapes = tuple(leaf.shape for leaf in jax.tree.leaves(model.pack(**arrays)))
      if shapes not in seen:
        answers()
        seen.add(shapes)
      records.append({"answers": answers()})
  records.close()
  rows = summarize(records.records, settings.ratios, model.config.text, np.dtype(params_lib.DTYPES[dtype]).itemsize)
  files.write(output / "efficiency.json", json.dumps({"settings": origin, "rows": rows}, indent=1) + "\n")
  print(
    f"\n{questions.name}, {settings.preset or environment.model_name(settings.model)}, {dtype}, {settings.max_new_tokens} "
    f"tokens per answer; {environment.device()}, {environment.today()}; {environment.versions()}\n"
  )
  print("\n".join(_table(rows)))
  return rows


def summarize(records: Sequence[dict[str, Any]], ratios: Sequence[float], text, itemsize: int) -> list[dict[str, Any]]:
  """A row per ratio.

  Args:
    records: of the journal, one per picture.
    ratios: shares of visual tokens kept.
    text: configuration of the decoder.
    itemsize: bytes per element of the cache.

  Returns:
    For each ratio: questions, tokens per prompt, total seconds and their share of the unpruned, bytes of the key/value cache
    per prompt, and the most bytes of the process and of the device.
  """
  rows: list[dict[str, Any]] = []
  for number, ratio in enumerate(ratios):
    answers = [record["answers"][number] for record in records]
    tokens, seconds = (float(np.sum([answer[name] for answer in answers])) for name in ("tokens", "seconds"))
    process, device = (
      max((answer[name] for answer in answers if answer[name] is not None), default=None) for name in ("process", "device")
    )
    rows.append(
      {
        "keep_ratio": ratio,
        "questions": len(answers),
        "tokens": tokens / len(answers),
        "seconds": seconds,
        "share": seconds / rows[0]["seconds"] if rows else 1.0,
        "cache_bytes": itemsize * flops.kv_cache_elements(text, 1) * tokens / len(answers),
        "process": process,
        "device": device,
      }
    )
  return rows


def _table(rows) -> list[str]:
  megabytes = lambda value: "-" if value is None else f"{value / 1e6:.0f}"
  cells = [
    [
      f"{100 - 100 * row['keep_ratio']:g} %",
      f"{row['tokens']:.0f}",
      f"{row['seconds']:.1f}",
      f"{100 * row['share']:.1f} %",
      f"{1e3 * row['seconds'] / row['questions']:.0f}",
      f"{row['cache_bytes'] / 1e6:.3g}",
      megabytes(row["process"]),
      megabytes(row["device"]),
    ]
    for row in rows
  ]
  columns = ["visual tokens removed", "tokens per prompt", "total time, s", "of unpruned", "ms per question"]
  return tables.table(
    [*columns, "KV cache per prompt, MB", "process at its peak, MB", "device at its peak, MB"], cells, left=0
  )


if __name__ == "__main__":
  command.main(Settings, run)
