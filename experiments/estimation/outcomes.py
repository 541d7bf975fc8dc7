"""Whether pruned models answer right, found without decoding, for one batch and any number of settings of pruning.

The same programs, one by one, are what settings are timed by.

Axes: B batch, H heads, N variants, L tokens of the compacted prompt.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.estimation.data import Batch
from hawk_jax.buckets import bucket
from hawk_jax.pruning import Pruning
from models import generation
from models import sharding
from models import stages
from models import teacher_forcing
from models.vision_language import Inputs

# Tokens that go through the decoder at a time, or one prompt; with more, a small model's arrays leave the caches of a CPU.
_TOKENS = 2048
# Pairs of visual tokens that are compared at a time, 256 MB in float32.
_PAIRS = 1 << 26
# Variants that prune inside the decoder and go through it together: the layers before run once for all of them.
_TOGETHER = 4


@dataclasses.dataclass(frozen=True)
class Variant:
  """A setting of pruning under a name.

  Attributes:
    name: `row@share` for the tables: what prunes, and the share of visual tokens that it is meant to keep.
    importance: [H] float32, or None: uniform head weights.
    pruning: the rule and its budget.
  """

  name: str
  importance: np.ndarray | None = None
  pruning: Pruning = Pruning()


def measure(
  model, params, batch: Batch, variants: Sequence[Variant], seeds: np.ndarray | int = 0
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """What `outcome` returns for each of several variants, by name, in less time.

  Variants that differ only in how heads are weighted often keep the same tokens of a question. The decoder runs once for
  each distinct compacted prompt, over prompts of about the same length at a time, and is compiled once for each length, not
  for each rule. Of variants that prune inside the decoder, the layers before run once for several.

  Args:
    model: as in `outcome`.
    params: as in `outcome`.
    batch: as in `outcome`.
    variants: how to prune, under different names.
    seeds: as in `outcome`.
  """
  found, groups = {}, collections.defaultdict(list)
  for variant in variants:
    if variant.pruning.stages:
      found[variant.name] = outcome(model, params, batch, variant, seeds)
    else:
      groups[dataclasses.replace(variant.pruning, head_weights="importance", keep_mass=None)].append(variant)
  for group in groups.values():
    measure_group = _measure_group if _before_decoder(group[0]) else _measure_in_decoder
    found |= measure_group(model, params, batch, group, seeds)
  return {variant.name: found[variant.name] for variant in variants}


def _measure_in_decoder(model, params, batch, variants, seeds):
  """`measure` for variants of one rule, one merge and one number of slots, which prune inside the decoder."""
  args = params, batch.prompt, batch.features, batch.answers
  found = {}
  for alike in _alike(model, batch, variants, seeds):
    most = min(_TOGETHER, len(alike), _most_together(model, batch.prompt))
    for start in range(0, len(alike), most):
      some = alike[start : start + most]
      plans = [plan for _, plan in some] + [some[-1][1]] * (most - len(some))  # one program for all
      outcomes = _outcome(*args, plans[0], model=model) if most == 1 else _outcome_each(*args, _stacked(plans), model=model)
      right, kept = (np.reshape(each, [most, -1]) for each in sharding.fetch(outcomes, model.mesh))
      found |= {variant.name: (right[number], kept[number]) for number, (variant, _) in enumerate(some)}
  return found


def _alike(model, batch, variants, seeds):
  """Variants with their plans, in lists whose plans differ in their arrays only."""
  groups = collections.defaultdict(list)
  for variant in variants:
    plan = _plan(model, batch, variant, seeds)
    groups[jax.tree.structure(plan)].append((variant, plan))
  return list(groups.values())


def _stacked(plans):
  return jax.tree.map(lambda *each: np.stack(each), *plans)


def _measure_group(model, params, batch, variants, seeds):
  """`measure` for variants of one rule, one merge and one number of slots, which prune before the decoder."""
  prompt, rows = batch.prompt, len(batch.datasets)
  groups = _alike(model, batch, variants, seeds)
  variants = [variant for alike in groups for variant, _ in alike]
  most = _most_together(model, prompt)
  sequences = [
    _compacted_together(model, params, batch, [plan for _, plan in alike[start : start + most]])
    for alike in groups
    for start in range(0, len(alike), most)
  ]
  sequences = jax.tree.map(lambda *parts: jnp.concatenate(parts), *sequences)
  order = sharding.fetch(sequences.order, model.mesh)  # [N * B, L]
  lengths, questions = (order >= 0).sum(axis=1), np.tile(np.arange(rows), len(variants))
  # By descending length. Within the group, a compacted prompt follows from its question and the tokens that it keeps.
  keys = np.column_stack([-lengths, questions, order])
  _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
  right, start = [], 0
  while start < len(first):
    length, size = _shape(int(lengths[first[start]]), order.shape[1], rows)
    some = first[np.minimum(np.arange(start, start + size), len(first) - 1)]
    question = questions[some]
    own_prompts = jax.tree.map(lambda x, question=question: x[question], prompt)
    cut = _rows(sequences, some, length=length)
    right.append(_right(params, own_prompts, cut, batch.features, batch.answers[question], model=model))
    start += size
  right = np.concatenate(sharding.fetch(right, model.mesh))[inverse.reshape(len(variants), rows)]
  kept = (lengths.reshape(len(variants), rows) - prompt.text_counts).astype(np.float32) / np.float32(prompt.visual_counts)
  return {variant.name: pair for variant, pair in zip(variants, zip(right, kept))}


def _most_together(model, prompt) -> int:
  """How many variants pick tokens in one program; some rules compare all pairs of visual tokens."""
  rows, visual = prompt.visual_order.shape
  return max(1, _PAIRS // (rows * visual**2)) if model.mesh is None else 1


def _compacted_together(model, params, batch, plans):
  """Compacted prompts, [len(plans) * B, ...], of plans that differ in their arrays only."""
  args = params, batch.prompt, batch.features
  if len(plans) == 1:
    return _compacted(*args, plans[0], model=model)
  return _compacted_each(*args, _stacked(plans), model=model)


def programs(
  model, params, batch: Batch, variants: Sequence[Variant], seeds: np.ndarray | int = 0
) -> tuple[dict[str, Callable[[], Any]], dict[str, dict[str, float]]]:
  """What is to be timed for each of several variants: the work from a picture's visual tokens to its answer.

  Variants with the same settings of pruning do the same work, whatever their importances, and so do the decoders of all
  variants on prompts of one length. What is planned on the host is not timed.

  Args:
    model: as in `outcome`.
    params: as in `outcome`.
    batch: as in `outcome`.
    variants: as in `measure`.
    seeds: as in `outcome`.

  Returns:
    Programs by name, each of which returns when its work is done. And by the name of a variant: the names of programs whose
    seconds, times the number beside each, add up to those of one question. Measures and stages in the vision tower count
    with what they add to the tower's time, or take from it.
  """
  rows, found, parts = len(batch.datasets), {}, {}
  inputs = Inputs(batch.prompt, batch.vision)

  def add(name, function):
    found.setdefault(name, lambda: jax.block_until_ready(function()))
    return name

  def encoder(*measures):
    encode = functools.partial(generation.encode_pictures, model, params, inputs, measures)
    return add(", ".join(["tower", *measures]), encode)

  known: dict[Pruning, dict[str, float]] = {}
  for variant in variants:
    pruning = variant.pruning
    if pruning not in known:
      own = known[pruning] = {}
      if pruning.rule.measures:
        own |= {encoder(*sorted(pruning.rule.measures)): 1 / rows, encoder(): -1 / rows}
      if _before_decoder(variant):
        plan = _plan(model, batch, variant, seeds)
        select = functools.partial(_compacted, params, batch.prompt, batch.features, plan, model=model)
        sequence = select()
        lengths = sharding.fetch(sequence.order >= 0, model.mesh).sum(axis=1)
        length, size = _shape(int(lengths.max()), sequence.order.shape[1], rows)
        decode = functools.partial(
          _right,
          params,
          jax.tree.map(lambda x, size=size: x[:size], batch.prompt),
          _rows(sequence, np.arange(size), length=length),
          batch.features,
          batch.answers[:size],
          model=model,
        )
        own |= {add(f"select, {variant.name}", select): 1 / rows, add(f"decoder, {size} x {length}", decode): 1 / size}
      else:
        run, encodes = _prepare(model, params, batch, variant, seeds)
        own[add(f"whole, {variant.name}", run)] = 1 / rows
        if encodes:
          own[encoder()] = -1 / rows
    parts[variant.name] = known[pruning]
  return found, parts


def _before_decoder(variant):
  return variant.pruning.stage == "input" and not variant.pruning.stages


def _shape(longest, slots, rows):
  """Slots of compacted prompts, the longest of which has so many tokens, and how many go through the decoder at a time."""
  length = min(bucket(longest), slots)
  return length, -(-rows // -(-rows * length // _TOKENS))  # equal parts of the batch


def outcome(model, params, batch: Batch, variant: Variant, seeds: np.ndarray | int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Whether a pruned model answers right.

  Args:
    model: a port.
    params: its parameters.
    batch: the questions.
    variant: how to prune.
    seeds: a whole number, or [B], for selectors that draw at random.

  Returns:
    [B] bool, whether the greedy answer is the reference, and [B] float32, the share of visual tokens that was kept; with
    stages in the decoder, the mean over its layers.
  """
  run, _ = _prepare(model, params, batch, variant, seeds)
  return sharding.fetch(run(), model.mesh)


def _prepare(model, params, batch, variant, seeds) -> tuple[Callable[[], Any], bool]:
  """What computes an `outcome` on the device, and whether it encodes the pictures, as a stage in the tower does."""
  inputs = Inputs(batch.prompt, batch.vision)
  tower, limits = stages.plan_tower(model, inputs, variant.pruning, variant.importance)
  plan = _plan(model, batch, variant, seeds, limits)

  def run():
    features = generation.encode_pictures(model, params, inputs, (), tower) if tower else batch.features
    return _outcome(params, batch.prompt, features, batch.answers, plan, model=model)

  return run, bool(tower)


def _plan(model, batch, variant, seeds, limits=None):
  scores = batch.relevance if "scores" in variant.pruning.rule.needs else None
  return generation.make_plan(
    model, batch.prompt, variant.pruning, variant.importance, scores=scores, seeds=seeds, limits=limits
  )


@functools.partial(jax.jit, static_argnames="model")
def _outcome(params, prompt, features, answers, plan, *, model):
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(prompt, features, plan, method=stages.prefill)
  kept = (prefill.mean_lengths - prompt.text_counts) / prompt.visual_counts
  return apply(prompt, prefill, answers, method=teacher_forcing.judge).right, kept


@functools.partial(jax.jit, static_argnames="model")
def _outcome_each(params, prompt, features, answers, plans, *, model):
  return jax.vmap(lambda plan: _outcome(params, prompt, features, answers, plan, model=model))(plans)


@functools.partial(jax.jit, static_argnames="model")
def _compacted(params, prompt, features, plan, *, model):
  return model.apply({"params": params}, prompt, features, plan, method="prune")


@functools.partial(jax.jit, static_argnames="model")
def _compacted_each(params, prompt, features, plans, *, model):
  # What does not depend on the plan, such as the scores of all heads, is computed once.
  found = jax.vmap(lambda plan: _compacted(params, prompt, features, plan, model=model))(plans)
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), found)


@functools.partial(jax.jit, static_argnames="length")
def _rows(sequences, rows, *, length):
  """Some rows of compacted prompts, without the padding after `length` slots."""
  return jax.tree.map(lambda x: x[rows, :length], sequences)


@functools.partial(jax.jit, static_argnames="model")
def _right(params, prompt, sequence, features, answers, *, model):
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(sequence, features, method="run")
  return apply(prompt, prefill, answers, method=teacher_forcing.judge).right
