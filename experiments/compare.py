"""Compares head importances and selectors: accuracy against the share of visual tokens kept.

  python -m experiments.compare --importance=ablation=out/ablation/head_importance.json

Every setting answers the same held-out questions, so differences are paired. Pictures are encoded once for all settings.
Writes compare.md, compare.csv, compare.png and heads.png. Killed at any moment, the same command goes on after the last
batch.
"""

from __future__ import annotations

from collections.abc import Sequence
import functools

from absl import flags
import jax
import numpy as np

from experiments import adaptive
from experiments import command
from experiments import compare_report
from experiments import data
from experiments import digits
from experiments import embedded
from experiments import figures
from experiments import journal
from hawk_jax import importance
from hawk_jax import selectors
from models import generation
from models import load_model
from models import load_processor
from models import sharding
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
_CLIP = flags.DEFINE_string("clip", None, "CLIP checkpoint directory or hub id, for the selector cdpruner.")
_ADAPTIVE = flags.DEFINE_multi_string(
    "adaptive", [], "A row of HAWK that also comes with an adaptive budget of the same mean. Repeat for several.")
_CALIBRATION_DATA = flags.DEFINE_string("calibration_data", None, "JSON lines that set the adaptive budget's threshold; by "
                                        "default 200 pictures of the embedded task's calibration split.")
_HEADS = flags.DEFINE_bool("heads", True, "Also every head by itself, at the two smallest shares.")
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 40, "Questions a batch.", lower_bound=1)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/compare", "Where results go.")


@functools.partial(jax.jit, static_argnames="model")
def outcome(params, prompt, features, answers, pruning, *, model):
  """[B] bool, whether the pruned model's greedy answer is the reference; [B] float32, share of visual tokens kept."""
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(prompt, features, method="prefill", **generation.pruning_arguments(pruning))
  kept = (prefill.lengths - prompt.text_counts) / prompt.visual_counts
  return apply(prompt, prefill, answers, method=teacher_forcing.judge).right, kept


def check_apart(subject: str, pictures: set[str], test_pictures: set[str]) -> None:
  """Refuses calibration on test pictures; the message begins with `subject`."""
  if shared := len(pictures & test_pictures):
    raise ValueError(f"{subject} {shared} of the test pictures; calibrate on others")


def importances(heads: int, model: str, test_pictures: set[str]) -> dict[str, np.ndarray]:
  """The rows of HAWK, by name.

  Args:
    heads: of the model's first layer.
    model: fingerprint of its parameters.
    test_pictures: digests.

  Raises:
    ValueError: a malformed flag, or an importance that was estimated with another model or on one of the test pictures.
  """
  found = {"uniform": importance.load("uniform", heads)}
  for argument in _IMPORTANCES.value:
    name, equals, source = argument.partition("=")
    if not equals or name in found or name in _SELECTORS.value:
      raise ValueError(f"importance: got {argument!r}, must be NAME=SOURCE with a name of its own")
    found[name] = importance.load(source, heads)
    origin = importance.details(source)
    estimated_with = origin.get("settings", {}).get("model", model)
    if estimated_with != model:
      raise ValueError(f"importance: {source} was estimated with the model {estimated_with}, this one is {model}")
    check_apart(f"importance: {source} was estimated on", {*origin.get("pictures", ())}, test_pictures)
  if unknown := [name for name in _ADAPTIVE.value if name not in found]:
    raise ValueError(f"adaptive: got {', '.join(unknown)}, the rows of HAWK are {', '.join(found)}")
  return found


def calibration_examples(test_pictures: set[str]) -> Sequence[data.Example]:
  """What sets the thresholds of adaptive budgets."""
  if not _ADAPTIVE.value:
    return []
  if _CALIBRATION_DATA.value:
    examples = data.from_jsonl(_CALIBRATION_DATA.value)
  elif _DATA.value:
    raise ValueError("calibration_data: adaptive budgets need it beside data")
  else:
    examples = data.from_digits("calibration", digits.KINDS, 200 // len(digits.KINDS), seed=1)
  check_apart("calibration_data: holds", {example.digest for example in examples}, test_pictures)
  return examples


def settings_of(rows, ratios, budgets, heads) -> dict[str, dict]:
  """Arguments of `plan_pruning` by the setting's name, row@ratio.

  Args:
    rows: of `importances`.
    ratios: shares to keep, descending.
    budgets: by row, what `adaptive.calibrate` returned.
    heads: of the model's first layer.
  """
  found = {"all tokens@1": {}}
  for ratio in ratios:
    for name, weights in rows.items():
      found[f"{name}@{ratio:g}"] = dict(head_importance=weights, keep_ratio=ratio)
    for name, arguments in budgets.items():
      found[f"{name}, adaptive@{ratio:g}"] = dict(head_importance=rows[name], **arguments[ratio])
    for selector in _SELECTORS.value:
      found[f"{selector}@{ratio:g}"] = dict(selector=selector, keep_ratio=ratio)
    if _HEADS.value and ratio in ratios[-2:]:
      for head in range(heads):
        found[f"head {head}@{ratio:g}"] = dict(head_importance=np.eye(heads, dtype=np.float32)[head], keep_ratio=ratio)
  return found


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  clip = data.load_clip(_CLIP.value, _SELECTORS.value)
  model, params = load_model(_MODEL.value, mesh=command.mesh())
  processor = load_processor(_MODEL.value)
  heads = model.config.text.num_attention_heads
  examples = (data.from_jsonl(_DATA.value) if _DATA.value
              else data.from_digits("test", digits.KINDS, _QUESTIONS.value // len(digits.KINDS)))
  pictures, fingerprint = {example.digest for example in examples}, data.params_fingerprint(params)
  rows = importances(heads, fingerprint, pictures)
  calibration = calibration_examples(pictures)
  ratios, size = sorted({*_KEEP_RATIOS.value} - {1.0}, reverse=True), _BATCH_SIZE.value
  budgets = {name: adaptive.calibrate(model, params, processor, calibration, rows[name], ratios, size)
             for name in _ADAPTIVE.value}
  variants = settings_of(rows, ratios, budgets, heads)
  records = journal.Journal(output / "batches.jsonl", {
      "model": fingerprint, "data": data.fingerprint(examples), "batch_size": size,
      "calibration": data.fingerprint(calibration), "clip": clip and data.params_fingerprint(clip.params),
      "importance": {name: weights.tolist() for name, weights in rows.items()}, "settings": list(variants)})
  batches = [examples[start:start + size] for start in range(0, len(examples), size)]
  for number in records.remaining(len(batches), "batch"):
    batch = data.make_batch(model, params, processor, batches[number], clip)
    bits, shares = {}, {}
    for name, arguments in variants.items():
      seeds = np.arange(number * size, number * size + len(batches[number]))
      scores = batch.relevance if arguments.get("selector") in selectors.WITH_SCORES else None
      pruning = generation.plan_pruning(model, batch.prompt, **arguments, scores=scores, selector_seed=seeds)
      hits, kept = sharding.fetch(
          outcome(params, batch.prompt, batch.features, batch.answers, pruning, model=model), model.mesh)
      bits[name], shares[name] = "".join(np.where(hits, "1", "0")), float(np.asarray(kept, np.float64).sum())
    records.append({"right": bits, "kept": shares})
  records.close()

  title = (f"{len(examples)} held-out questions, {command.model_name(_MODEL.value)}; right answers in % with 95 % bootstrap "
           f"intervals; {command.device()}, {command.today()}; {command.versions()}.")
  report(output, records.records, list(variants), len(examples), heads, title)


def report(output, records, names, questions, heads, title) -> None:
  """Tables and plots of all records."""
  hits = {name: np.asarray([bit == "1" for record in records for bit in record["right"][name]]) for name in names}
  kept = {name: sum(record["kept"][name] for record in records) / questions for name in names}
  table = compare_report.analyse(hits, kept)
  text = compare_report.markdown(table, title)
  journal.write(output / "compare.md", text)
  journal.write(output / "compare.csv", compare_report.csv(table))
  figures.lines(output / "compare.png", *compare_report.curves(table), "share of visual tokens kept", "right answers, %")
  if _HEADS.value:
    figures.bars(output / "heads.png", compare_report.heads(table, heads), "head of the first layer, alone",
                 "share of right answers")
  print(text)
  print(f"written to {output}")


if __name__ == "__main__":
  command.run(main)
