"""Compares head importances and selectors: accuracy against the share of visual tokens kept.

  python -m experiments.compare --importance=ablation=out/ablation/head_importance.json

Every setting answers the same held-out questions, so differences are paired. Writes compare.md, compare.csv, compare.png
and heads.png. Killed at any moment, the same command goes on after the last batch.
"""

from __future__ import annotations

import functools
import json
import pathlib

from absl import flags
import jax
import numpy as np

from experiments import command
from experiments import compare_report
from experiments import data
from experiments import digits
from experiments import embedded
from experiments import figures
from experiments import journal
from hawk_jax import importance
from models import generation
from models import load_model
from models import load_processor
from models import teacher_forcing

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
_DATA = flags.DEFINE_string("data", None, "JSON lines of image, question, answer, dataset; by default the embedded task's "
                            "test split.")
_QUESTIONS = flags.DEFINE_integer("questions", 2000, "Of the embedded task, the kinds in turn.", lower_bound=5)
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.6, 0.4, 0.2, 0.1, 0.05], "Shares of the visual tokens to keep.")
_IMPORTANCES = flags.DEFINE_multi_string(
    "importance", [], "NAME=SOURCE: a row of HAWK with a head importance, a JSON file or preset:NAME. Repeat for several.")
_SELECTORS = flags.DEFINE_multi_string(
    "selector", ["random", "fastv", "divprune", "hawk+dpp", "hawk+mmr", "qaprune"], "Rivals; heads are equal where they use "
    "HAWK's score.")
_HEADS = flags.DEFINE_bool("heads", True, "Also every head by itself, at the two smallest shares.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 40, "Questions a batch.", lower_bound=1)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/compare", "Where results go.")


@functools.partial(jax.jit, static_argnames="model")
def right(params, prompt, features, answers, pruning, *, model):
  """[B] bool, whether the pruned model's greedy answer is the reference."""
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(prompt, features, method="prefill", **generation.pruning_arguments(pruning))
  return apply(prompt, prefill, answers, method=teacher_forcing.judge).right


def importances(heads: int, test_pictures: set[str]) -> dict[str, np.ndarray]:
  """The rows of HAWK, by name.

  Raises:
    ValueError: a malformed flag, or an importance that was estimated on one of the test pictures.
  """
  found = {"uniform": importance.load("uniform", heads)}
  for argument in _IMPORTANCES.value:
    name, equals, source = argument.partition("=")
    if not equals or name in found or name in _SELECTORS.value:
      raise ValueError(f"importance: got {argument!r}, must be NAME=SOURCE with a name of its own")
    found[name] = importance.load(source, heads)
    if not source.startswith("preset:") and source != "uniform":
      content = json.loads(pathlib.Path(source).read_text())
      shared = test_pictures & set(content.get("pictures", ())) if isinstance(content, dict) else ()
      if shared:
        raise ValueError(f"importance: {source} was estimated on {len(shared)} of the test pictures; calibrate on others")
  return found


def settings_of(rows: dict[str, np.ndarray], heads: int) -> dict[str, dict]:
  """Arguments of `plan_pruning` by the setting's name: row@ratio."""
  ratios, found = sorted({*_KEEP_RATIOS.value} - {1.0}, reverse=True), {"all tokens@1": {}}
  for ratio in ratios:
    for name, weights in rows.items():
      found[f"{name}@{ratio:g}"] = dict(head_importance=weights, keep_ratio=ratio)
    for selector in _SELECTORS.value:
      found[f"{selector}@{ratio:g}"] = dict(selector=selector, keep_ratio=ratio)
    if _HEADS.value and ratio in ratios[-2:]:
      for head in range(heads):
        found[f"head {head}@{ratio:g}"] = dict(head_importance=np.eye(heads, dtype=np.float32)[head], keep_ratio=ratio)
  return found


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  model, params = load_model(_MODEL.value)
  processor = load_processor(_MODEL.value)
  heads = model.config.text.num_attention_heads
  examples = (data.from_jsonl(_DATA.value) if _DATA.value
              else data.from_digits("test", digits.KINDS, _QUESTIONS.value // len(digits.KINDS)))
  rows = importances(heads, {example.digest for example in examples})
  variants = settings_of(rows, heads)
  size = _BATCH_SIZE.value
  records = journal.Journal(output / "batches.jsonl", {
      "model": data.params_fingerprint(params), "data": data.fingerprint(examples), "batch_size": size,
      "importance": {name: weights.tolist() for name, weights in rows.items()}, "settings": list(variants)})
  batches = [examples[start:start + size] for start in range(0, len(examples), size)]
  for number in records.remaining(len(batches), "batch"):
    batch = data.make_batch(model, params, processor, batches[number])
    bits = {}
    for name, arguments in variants.items():
      seeds = np.arange(number * size, number * size + len(batches[number]))
      pruning = generation.plan_pruning(model, batch.prompt, **arguments, selector_seed=seeds)
      hits = right(params, batch.prompt, batch.features, batch.answers, pruning, model=model)
      bits[name] = "".join(np.where(hits, "1", "0"))
    records.append({"right": bits})
  records.close()

  hits = {name: np.concatenate([[bit == "1" for bit in record["right"][name]] for record in records.records])
          for name in variants}
  table = compare_report.analyse(hits)
  title = (f"{len(examples)} held-out questions, {_MODEL.value}; share of right answers in % with 95 % bootstrap intervals; "
           f"{command.device()}, {command.today()}; {command.versions()}.")
  journal.write(output / "compare.md", compare_report.markdown(table, title))
  journal.write(output / "compare.csv", compare_report.csv(table))
  by_row = {}
  for entry in table:
    if not entry["row"].startswith("head ") and entry["row"] != "all tokens":
      by_row.setdefault(entry["row"], []).append((entry["kept"], 100 * entry["accuracy"]))
  shares = sorted({kept for points in by_row.values() for kept, _ in points})
  curves = {name: [value for _, value in sorted(points)] for name, points in by_row.items()}
  figures.lines(output / "compare.png", shares, curves, "share of visual tokens kept", "right answers, %")
  if _HEADS.value:
    figures.bars(output / "heads.png", compare_report.heads(table, heads), "head of the first layer, alone",
                 "share of right answers")
  print(compare_report.markdown(table, title))
  print(f"written to {output}")


if __name__ == "__main__":
  command.run(main)
