"""Estimates offline how much each attention head of the first layer matters for vision.

  python -m experiments.head_importance --estimator=ablation
  python -m experiments.head_importance --estimator=gradient --model=Qwen/Qwen2.5-VL-7B-Instruct --data=calibration.jsonl

Writes head_importance.json (the weights, each head's score on each data set, settings, hashes, versions), which
`--head_importance=FILE` of the other apps and `hawk_jax.importance.load` read, and head_importance.png. Killed at any
moment, the same command goes on after the last batch.
"""

from __future__ import annotations

import warnings

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import command
from experiments import data
from experiments import digits
from experiments import embedded
from experiments import estimators
from experiments import figures
from experiments import journal
from hawk_jax import importance
from hawk_jax import selection
from models import generation
from models import load_model
from models import load_processor
from models import sharding

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
_ESTIMATOR = flags.DEFINE_string(
    "estimator", "ablation", f"{', '.join(estimators.ESTIMATORS)}, learned, uniform, random, or one_hot:HEAD.")
_DATA = flags.DEFINE_string("data", None, "JSON lines of image, question, answer, dataset; by default the embedded task's "
                            "calibration split.")
_DATASETS = flags.DEFINE_multi_enum("dataset", list(digits.KINDS), digits.KINDS, "Of the embedded task.")
_EXAMPLES = flags.DEFINE_integer("examples", 200, "Of each of the embedded task's data sets.", lower_bound=1)
_SCOPE = flags.DEFINE_enum("scope", "first_layer", ["first_layer", "all_layers"], "Where a head is ablated.")
_MODE = flags.DEFINE_enum("mode", "zero_output", ["zero_output", "mask_visual"], "How a head is ablated.")
_METRIC = flags.DEFINE_enum("metric", "accuracy", ["accuracy", "log_likelihood"], "Whose drop is measured by `ablation`.")
_KEEP_RATIO = flags.DEFINE_float("keep_ratio", 0.1, "Share of visual tokens that `learned` learns to keep.")
_STEPS = flags.DEFINE_integer("steps", 150, "Of `learned`.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 0.1, "Of `learned`.", lower_bound=0.0)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 20, "Examples a batch.", lower_bound=1)
_HEADS_AT_ONCE = flags.DEFINE_integer("heads_at_once", None, "Ablations computed side by side.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 0, "Of `random`, and of which calibration examples are drawn.", lower_bound=0)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/head_importance", "Where results go.")

_FIXED = ("uniform", "random", "one_hot")


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  name, _, detail = _ESTIMATOR.value.partition(":")
  if name not in (*estimators.ESTIMATORS, "learned", *_FIXED) or (name == "one_hot") != bool(detail):
    raise ValueError(f"estimator: got {_ESTIMATOR.value!r}, allowed are {', '.join(estimators.ESTIMATORS)}, learned, "
                     "uniform, random, one_hot:HEAD")
  model, params = load_model(_MODEL.value, mesh=command.mesh())
  heads = model.config.text.num_attention_heads
  settings = {"estimator": _ESTIMATOR.value, "model_name": command.model_name(_MODEL.value), "heads": heads,
              "seed": _SEED.value}
  if name in _FIXED:
    return finish(output, _fixed(name, detail, heads), {}, settings, [])

  examples = (data.from_jsonl(_DATA.value) if _DATA.value
              else data.from_digits("calibration", _DATASETS.value, _EXAMPLES.value, _SEED.value))
  settings |= {"model": data.params_fingerprint(params), "data": data.fingerprint(examples), "examples": len(examples),
               "batch_size": _BATCH_SIZE.value}
  processor = load_processor(_MODEL.value)
  batches = [examples[start:start + _BATCH_SIZE.value] for start in range(0, len(examples), _BATCH_SIZE.value)]
  encode = lambda number: data.make_batch(model, params, processor, batches[number])
  if name == "learned":
    settings |= {"keep_ratio": _KEEP_RATIO.value, "steps": _STEPS.value, "learning_rate": _LEARNING_RATE.value}
    records = journal.Journal(output / "steps.jsonl", settings)
    weights = _learn(model, params, encode, len(batches), processor, records)
    return finish(output, weights, {}, settings, examples)

  chosen = estimators.Settings(_SCOPE.value, _MODE.value, _METRIC.value, _HEADS_AT_ONCE.value)
  settings |= {"scope": chosen.scope, "mode": chosen.mode, "metric": chosen.metric}
  records = journal.Journal(output / "batches.jsonl", settings)
  for number in records.remaining(len(batches), "batch"):
    batch = encode(number)
    scores = estimators.ESTIMATORS[name](model, params, batch, chosen)
    records.append({"datasets": batch.datasets, "scores": scores.T.tolist()})
  records.close()

  labels = np.concatenate([record["datasets"] for record in records.records])
  scores = np.concatenate([record["scores"] for record in records.records])
  drops = {str(dataset): scores[labels == dataset].mean(axis=0) for dataset in dict.fromkeys(labels)}
  finish(output, importance.from_ablation(np.stack(list(drops.values()), axis=1)), drops, settings, examples)


def finish(output, weights, drops, settings, examples) -> None:
  """Writes the results."""
  skipped = [dataset for dataset, values in drops.items() if np.ptp(values) == 0]
  importance.save(output / "head_importance.json", weights, settings=settings, versions=command.versions(),
                  scores={dataset: values.tolist() for dataset, values in drops.items()}, skipped=skipped,
                  pictures=sorted({example.digest for example in examples}))
  bars = {dataset: values / np.abs(values).max() if values.any() else values for dataset, values in drops.items()}
  bars["head importance"] = weights / weights.max()
  figures.bars(output / "head_importance.png", bars, "head of the first layer", "share of the largest")
  for dataset in skipped:
    logging.warning("skipped %s: every head has the same score", dataset)
  print("| head | " + " | ".join([*drops, "importance"]) + " |")
  print("|---:|" + "---:|" * (len(drops) + 1))
  for head, weight in enumerate(weights):
    print(f"| {head} | " + " | ".join([*(f"{values[head]:.4f}" for values in drops.values()), f"{weight:.4f}"]) + " |")
  print(f"written {output / 'head_importance.json'}, head_importance.png")


def _fixed(name, detail, heads):
  if name == "uniform":
    return np.full(heads, 1 / heads, np.float32)
  if name == "random":
    return np.random.default_rng(_SEED.value).dirichlet(np.ones(heads)).astype(np.float32)
  if not detail.isdigit() or int(detail) >= heads:
    raise ValueError(f"estimator: got one_hot:{detail}, the model's first layer has heads 0 to {heads - 1}")
  return np.eye(heads, dtype=np.float32)[int(detail)]


def _learn(model, params, encode, count, processor, records):
  """Runs `learn_step`; each record is the state after a step."""
  optimizer = optax.adam(_LEARNING_RATE.value)
  start = jnp.zeros(model.config.text.num_attention_heads)
  state = (start, optimizer.init(start))
  leaves, tree = jax.tree.flatten(state)
  if records.records:
    last = records.records[-1]["state"]
    state = jax.tree.unflatten(tree, [jnp.asarray(value, leaf.dtype) for value, leaf in zip(last, leaves)])
  prepared = {}
  for step in records.remaining(_STEPS.value, "step"):
    number = step % count
    if number not in prepared:
      prepared[number] = _with_own_answers(model, params, encode(number), processor)
    batch, answers = prepared[number]
    counts = selection.keep_counts(np.asarray(batch.prompt.visual_counts), keep_ratio=_KEEP_RATIO.value)
    temperature = 0.5 - 0.4 * step / _STEPS.value
    state, loss = estimators.learn_step(state, params, batch.prompt, batch.features, answers, counts, temperature,
                                        model=model, optimizer=optimizer)
    state, loss = sharding.fetch((state, loss), model.mesh)
    records.append({"loss": float(loss), "state": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state)]})
  records.close()
  return np.asarray(jax.nn.softmax(state[0]))


def _with_own_answers(model, params, batch, processor):
  """A batch, and what the unpruned model answers: [B, T], -1 after each end."""
  length = batch.answers.shape[1]
  end_ids, sampling = generation.check_decoding(model, batch.prompt, length, processor.eos_token_ids)
  out = generation.prefill_and_decode(params, batch.prompt, batch.features, None, sampling, end_ids, model=model,
                                      max_new_tokens=length, return_logits=False)
  tokens, lengths = np.asarray(out.tokens), np.asarray(out.lengths)
  return batch, np.where(np.arange(length) < lengths[:, None], tokens, -1)


if __name__ == "__main__":
  warnings.simplefilter("ignore", UserWarning)  # `finish` tells which data sets were skipped
  command.run(main)
