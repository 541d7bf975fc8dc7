"""Trains an embedded model on the digits task.

  python -m experiments.train --architecture=qwen2_5_vl --output_dir=out/train

Several questions a picture share its cache: each sees the picture and itself, at the positions it would have alone.
At first an auxiliary loss asks every visual token for its cell's contents, as a pretrained vision tower would know them,
and two heads half way up the decoder to look from the question's last token at the cells it is about; and pictures hold
fewer digits. `--point_first` asks heads of the first layer as well, from all of the question and without rotary positions:
two to look at the cells it is about, and half of them at the grey digits, whatever the question. So in large models: some
heads' scores follow the text, others look at the same places always, and head importance has something to find.
Later, half the pictures lose visual tokens that no question is about, so that the model gets used to gaps as large models
are.
Killed at any moment, the same command goes on from the last checkpoint; every batch follows from the seed and the step
alone, so the result is that of an undisturbed run.
"""

from __future__ import annotations

import collections
from concurrent import futures
import functools
import json
import time

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp

from experiments import command
from experiments import digits
from experiments import embedded
from hawk_jax import prompt as prompt_lib
from models import checkpoint
from models import decoder
from models import rope

_ARCHITECTURE = flags.DEFINE_enum("architecture", "qwen2_5_vl", list(embedded.ARCHITECTURES), "Which embedded model.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/train", "Checkpoints, and the finished model under model/.")
_STEPS = flags.DEFINE_integer("steps", 4000, "Optimizer steps.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 8, "Pictures a step.", lower_bound=1)
_QUESTIONS = flags.DEFINE_integer("questions", 12, "Questions a picture.", lower_bound=1)
_LEARNING_RATE = flags.DEFINE_float("learning_rate", 2e-3, "Peak learning rate.", lower_bound=0.0)
_INIT_FROM = flags.DEFINE_string(
    "init_from", None, "Checkpoint to go on from instead of random weights; pictures are then full and lose tokens at once.")
_PROBE_LEFT = flags.DEFINE_bool("probe_left", False, "Ask visual tokens half way up the decoder for the cell to their left.")
_POINT_FIRST = flags.DEFINE_bool("point_first", False, "Ask heads of the first layer where to look: two at what is asked "
                                 "about, half always at the grey digits.")
_SEED = flags.DEFINE_integer("seed", 0, "Of weights and data.")
_SAVE_EVERY = flags.DEFINE_integer("save_every", 100, "Steps between checkpoints.", lower_bound=1)
_EVALUATE_EVERY = flags.DEFINE_integer("evaluate_every", 250, "Steps between evaluations.", lower_bound=1)

_PROBES = (11, 10, 2)  # digit or none, colour or grey or none, boxed or not
_LEFT_PROBES = (11, 10)  # digit and colour of the cell to the left
_QUESTION_LENGTH = 24
_AUXILIARY_UNTIL = 0.5  # share of the steps over which the auxiliary loss fades out
_CURRICULUM_UNTIL = 0.25  # share of the steps over which pictures fill up
_GAPS_FROM = 0.35  # share of the steps after which tokens are dropped


def make_batch(architecture, model, tokenizer, rng, split, size, number, difficulty=1.0):
  """Pictures, and several questions to each.

  Returns:
    A dict: `inputs`, the packed prompts up to the picture's end; `tokens` [B, Q, T], each question with its answer;
    `targets` [B, Q, 2], the answer and the end token; `target_index` [B, Q, 2], where they are predicted; `cells`
    [B, V, 5], what every visual token shows, and the one to its left; `about` [B, Q, V], the cells each question is
    about, summing to 1. And the questions' kinds, [B][Q].
  """
  encode = lambda text: tokenizer.encode(text).ids
  prefix, ending = embedded.split_prompt(architecture, tokenizer)
  pictures, cells, about, tokens, targets, indices, kinds = [], [], [], [], [], [], []
  for _ in range(size):
    found = []
    while len(found) < number:
      scene = digits.make_scene(rng, split, difficulty)
      found = digits.questions(scene, rng)
    pictures.append(digits.render(scene, rng))
    box = np.zeros_like(scene.digits)
    box[scene.box] = 1
    left = [np.pad(values, ((0, 0), (1, 0)), constant_values=-1)[:, :-1] for values in (scene.digits, scene.colors)]
    shown = np.stack([scene.digits, scene.colors, box, *left], axis=-1) % (_PROBES + _LEFT_PROBES)
    cells.append(shown.reshape(-1, shown.shape[-1]))
    chosen = digits.balanced(found, rng, number)
    kinds.append([question.kind for question in chosen])
    for question in chosen:
      asked = encode(question.text + ending)
      answer = encode(question.answer + architecture.end_token)
      if len(answer) != 2:
        raise ValueError(f"answer {question.answer!r} must be one token, the tokenizer gives {len(answer) - 1}")
      if len(asked) + 1 > _QUESTION_LENGTH:
        raise ValueError(f"question {question.text!r} has {len(asked)} tokens, room is for {_QUESTION_LENGTH - 1}")
      tokens.append(asked + answer[:1] + [0] * (_QUESTION_LENGTH - len(asked) - 1))
      targets.append(answer)
      indices.append([len(asked) - 1, len(asked)])
      here = np.zeros_like(scene.digits, np.float32)
      here[tuple(np.transpose(question.cells))] = 1 / len(question.cells)
      about.append(here.reshape(-1))
  shape = lambda values: np.asarray(values, np.int32).reshape(size, number, -1)
  return {
      "inputs": model.pack(input_ids=[prefix] * size, **architecture.pixels(np.stack(pictures))),
      "tokens": shape(tokens),
      "targets": shape(targets),
      "target_index": shape(indices),
      "cells": np.asarray(cells, np.int32),
      "about": np.asarray(about).reshape(size, number, -1),
  }, kinds


def drop_tokens(batch, rng):
  """Drops visual tokens that no question is about, from every second picture a random share."""
  needed = batch["about"].sum(axis=1) > 0
  share = np.where(rng.random(len(needed)) < 0.5, rng.random(len(needed)), 1.0)
  kept = needed | (rng.random(needed.shape) < share[:, None])
  prompt = batch["inputs"].prompt
  order = prompt.visual_order.copy()
  order[:, :kept.shape[1]][~kept] = -1
  return {**batch, "inputs": batch["inputs"].replace(prompt=prompt.replace(visual_order=order))}


def forward(model, batch):
  """Answers, and where the picture's tokens are on the way to them.

  Returns:
    [B, Q, 2, vocab] answer logits, [B, V, D] visual features, [B, V, d] what they look like to the middle layer's first
    key head, [B, V] their places in the prompt, and [B, Q, H, V] their raw scores.
  """
  prompt, tokens = batch["inputs"].prompt, batch["tokens"]
  size, number, length = tokens.shape
  features = model.encode(batch["inputs"].vision)
  prefill = model.prefill(prompt, features)
  cache = decoder.make_cache(prefill.keys_values, prefill.lengths, length)
  # One picture's cache serves all its questions.
  cache = jax.tree.map(lambda x: jnp.repeat(x, number, axis=0) if x.ndim else x, cache)
  positions = jnp.repeat(prompt.next_position, number)[:, None] + jnp.arange(length)
  hidden, _ = model.extend(tokens.reshape(-1, length), positions, cache)
  answers = jax.vmap(lambda rows, at: rows[at])(hidden, batch["target_index"].reshape(-1, 2))
  keys = prefill.keys_values[0][_middle(model)][:, :, 0]
  places = prompt_lib.places(prefill.order, prompt.visual_order)
  keys = jax.vmap(lambda rows, at: rows[at])(keys, places)
  asked = jax.tree.map(lambda x: jnp.repeat(x, number, axis=0), prompt).replace(
      text_tokens=tokens.reshape(-1, length), query_mask=jnp.arange(length) <= batch["target_index"].reshape(-1, 2)[:, :1])
  scores = model.scores(asked, features).reshape(size, number, model.config.text.num_attention_heads, -1)
  return model.logits(answers).reshape(size, number, 2, -1), features[prompt.visual_slots], keys, places, scores


def _middle(model):
  return model.config.text.num_hidden_layers // 2


def _pointer(logits, cells, prompt):
  """Cross-entropy of attention logits [B, Q, M, V] and the cells to look at, [B, Q, V], summing to 1."""
  slots = cells.shape[-1]
  logits = jnp.where(prompt.visual_mask[:, None, None, :slots], logits[..., :slots], -1e9)
  return optax.softmax_cross_entropy(logits, cells[:, :, None]).mean()


def _pointing(text, batch, queries, keys):
  """Attention logits of each question's last token, [B, Q, M, V], by the M query heads that share the first key head.

  Args:
    text: the decoder's config.
    batch: of `make_batch`.
    queries: [B * Q, T, N * d] what the layer's query projection makes of the questions.
    keys: [B, V, d] rotated keys of the visual tokens.
  """
  last = batch["target_index"][..., :1]
  prompt = batch["inputs"].prompt
  queries = jax.vmap(lambda rows, at: rows[at])(queries, last.reshape(-1))
  queries = queries.reshape(*last.shape[:2], text.num_attention_heads, text.head_dim)
  positions = jnp.repeat(prompt.next_position[:, None, None] + last, max(len(text.mrope_section), 1), axis=-1)
  queries = rope.rotate(queries, *rope.rotation(positions, text.frequencies))
  return jnp.einsum("BQMd,BVd->BQMV", queries[:, :, :_sharing(text)], keys) / text.head_dim**0.5


def _sharing(text):
  """Query heads that share a key head."""
  return text.num_attention_heads // text.num_key_value_heads


def _probe(logits, cells, sizes):
  """Cross-entropy of cells [B, V, n], each of the n against its share of the logits [B, V, sum(sizes)]."""
  parts = jnp.split(logits[:, :cells.shape[1]], np.cumsum(sizes)[:-1], axis=-1)
  return sum(optax.softmax_cross_entropy_with_integer_labels(part, cells[..., number]).mean()
             for number, part in enumerate(parts))


def loss_fn(params, batch, auxiliary, model, point_first=False):
  """Cross-entropy of the answers, plus `auxiliary` times that of the cells; and its parts."""
  middle = _middle(model)
  query_path = ("language_model", f"layers_{middle}", "self_attn", "q_proj")
  below_path = ("language_model", f"layers_{middle - 1}")
  (logits, visual, keys, places, scores), captured = model.apply(
      {"params": params["model"]}, batch, method=forward, mutable="intermediates",
      capture_intermediates=lambda module, _: module.path in (query_path, below_path))
  calls = lambda path: functools.reduce(lambda tree, name: tree[name], path, captured["intermediates"])["__call__"]
  answer = optax.softmax_cross_entropy_with_integer_labels(logits, batch["targets"]).mean()
  cells = batch["cells"]
  probe = _probe(visual @ params["probe"], cells, _PROBES)
  # Of the two calls captured the first is `prefill`'s, on the picture, and the second `extend`'s, on the questions.
  if "left" in params:
    below = jax.vmap(lambda rows, at: rows[at])(calls(below_path)[0][0], places)
    probe += _probe(below @ params["left"], cells[..., len(_PROBES):], _LEFT_PROBES)
  prompt = batch["inputs"].prompt
  pointer = _pointer(_pointing(model.config.text, batch, calls(query_path)[1], keys), batch["about"], prompt)
  if point_first:
    grey = (cells[..., 1] == len(digits.COLORS)) & prompt.visual_mask[:, :cells.shape[1]]
    grey = jnp.broadcast_to((grey / jnp.maximum(grey.sum(-1, keepdims=True), 1))[:, None], batch["about"].shape)
    pointer += _pointer(scores[:, :, :_sharing(model.config.text)], batch["about"], prompt)
    pointer += _pointer(scores[:, :, scores.shape[2] // 2:], grey, prompt)
  right = logits[:, :, 0].argmax(-1) == batch["targets"][:, :, 0]
  return answer + auxiliary * (probe + pointer), {"answer": answer, "probe": probe, "pointer": pointer, "right": right}


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "point_first"), donate_argnames=("state",))
def train_step(state, batch, auxiliary, *, model, optimizer, point_first):
  grads, metrics = jax.grad(loss_fn, has_aux=True)(state["params"], batch, auxiliary, model, point_first)
  updates, opt_state = optimizer.update(grads, state["opt_state"], state["params"])
  return {"params": optax.apply_updates(state["params"], updates), "opt_state": opt_state}, metrics


@functools.partial(jax.jit, static_argnames="model")
def answered(params, batch, *, model):
  """[B, Q] bool, the questions answered right."""
  return loss_fn(params, batch, 0.0, model)[1]["right"]


@functools.cache
def make_optimizer(steps: int, learning_rate: float) -> optax.GradientTransformation:
  schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, min(200, steps // 10 + 1), steps, learning_rate / 100)
  decay = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
  adam = optax.adamw(schedule, b2=0.98, weight_decay=0.02, mask=decay)
  # The probe's large gradients must not clip the model's.
  return optax.partition({"model": optax.chain(optax.clip_by_global_norm(1.0), adam), "probe": adam},
                         lambda params: {name: "model" if name == "model" else "probe" for name in params})


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  architecture = embedded.ARCHITECTURES[_ARCHITECTURE.value]
  tokenizer = embedded.make_tokenizer(architecture)
  model = architecture.model(architecture.config(tokenizer.get_vocab_size()))
  settings = {name: flags.FLAGS[name].value
              for name in ("architecture", "steps", "batch_size", "questions", "learning_rate", "seed", "init_from",
                           "probe_left", "point_first")}
  settings_file = output / "settings.json"
  if settings_file.exists() and (before := json.loads(settings_file.read_text())) != settings:
    raise ValueError(f"output_dir: {output} holds a run with other settings {before}, not {settings}")
  settings_file.write_text(json.dumps(settings) + "\n")

  optimizer = make_optimizer(_STEPS.value, _LEARNING_RATE.value)
  params = jax.jit(model.init)(jax.random.key(_SEED.value), model.example())["params"]
  if _INIT_FROM.value:
    params = checkpoint.load_hf(checkpoint.resolve(_INIT_FROM.value), model)
  size = model.config.text.hidden_size
  params = {"model": params, "probe": jnp.zeros([size, sum(_PROBES)])}
  if _PROBE_LEFT.value:
    params["left"] = jnp.zeros([size, sum(_LEFT_PROBES)])
  print(f"{_ARCHITECTURE.value}: {sum(x.size for x in jax.tree.leaves(params['model'])) / 1e6:.2f} million parameters, "
        f"vocabulary {tokenizer.get_vocab_size()}", flush=True)
  state = {"params": params, "opt_state": optimizer.init(params)}

  def batch_at(step):
    rng = np.random.default_rng([_SEED.value, 1, step])
    difficulty = 1.0 if _INIT_FROM.value else min(1.0, 0.3 + 0.7 * step / (_CURRICULUM_UNTIL * _STEPS.value))
    batch, _ = make_batch(architecture, model, tokenizer, rng, "train", _BATCH_SIZE.value, _QUESTIONS.value, difficulty)
    whole = not _INIT_FROM.value and step < _GAPS_FROM * _STEPS.value
    return batch if whole else drop_tokens(batch, np.random.default_rng([_SEED.value, 3, step]))

  def evaluate(params):
    """Share of right answers by kind, on handwriting not trained on."""
    counts = collections.Counter()
    for number in range(8):
      rng = np.random.default_rng([_SEED.value, 2, number])
      batch, kinds = make_batch(architecture, model, tokenizer, rng, "calibration", _BATCH_SIZE.value, _QUESTIONS.value)
      right = np.asarray(answered(params, batch, model=model))
      for row, names in zip(right, kinds):
        for hit, name in zip(row, names):
          counts[name, bool(hit)] += 1
    return {kind: counts[kind, True] / (counts[kind, True] + counts[kind, False]) for kind in digits.KINDS}

  options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=_SAVE_EVERY.value)
  with ocp.CheckpointManager(output / "checkpoints", options=options) as manager, futures.ThreadPoolExecutor(1) as pool:
    start = manager.latest_step() or 0
    if start:
      state = manager.restore(start, args=ocp.args.StandardRestore(state))
      print(f"going on from step {start}", flush=True)
    pending = pool.submit(batch_at, start)
    began, seen = time.perf_counter(), start
    for step in range(start, _STEPS.value):
      batch = pending.result()
      pending = pool.submit(batch_at, step + 1)
      auxiliary = max(0.0, 1.0 - step / (_AUXILIARY_UNTIL * _STEPS.value))
      state, metrics = train_step(state, batch, auxiliary, model=model, optimizer=optimizer,
                                  point_first=_POINT_FIRST.value)
      done = step + 1
      if done % 25 == 0:
        jax.block_until_ready(metrics)
        rate = (done - seen) / (time.perf_counter() - began)
        means, left = [f"{name} {float(values.mean()):.3f}" for name, values in metrics.items()], _STEPS.value - done
        print(f"step {done} of {_STEPS.value}: {', '.join(means)}; {rate:.2f} steps/s, {left / rate / 60:.0f} min left",
              flush=True)
        began, seen = time.perf_counter(), done
      manager.save(done, args=ocp.args.StandardSave(state), force=done == _STEPS.value)
      if done % _EVALUATE_EVERY.value == 0 or done == _STEPS.value:
        accuracy = evaluate(state["params"])
        print(f"step {done}: right on new handwriting: "
              f"{', '.join(f'{kind} {share:.3f}' for kind, share in accuracy.items())}", flush=True)
    manager.wait_until_finished()

  embedded.write_assets(output / "model", architecture, tokenizer)
  checkpoint.save_hf(output / "model", model, jax.device_get(state["params"]["model"]), dtype="float16")
  print(f"model written to {output / 'model'}")


if __name__ == "__main__":
  command.run(main)
