"""The optimizer, one step of training, and the share of right answers on new handwriting."""

from __future__ import annotations

import functools
from typing import Any

import jax
import numpy as np
import optax
import optax.contrib

from experiments.digits import batches
from experiments.digits import curriculum
from experiments.digits import embedded
from experiments.digits import losses
from experiments.digits import task

OPTIMIZERS = ("adamw", "muon")
# Parameters of the ports that read the output of the vision tower.
_AFTER_TOWER = ("language_model", "lm_head")
# Muon's updates have a fifth of AdamW's size at the same learning rate; see `consistent_rms` of Optax.
_MUON_FACTOR = 3.0


@functools.cache
def make_optimizer(name: str, steps: int, learning_rate: float) -> optax.GradientTransformation:
  """AdamW or Muon with a warm-up of at most 200 steps and cosine decay to 1 % of the peak learning rate.

  The same arguments give the same object, so that a second run in one process compiles nothing.

  Args:
    name: in OPTIMIZERS. Muon updates matrices, and AdamW the embeddings and all that is no matrix.
    steps: of the run.
    learning_rate: peak, for AdamW; Muon's is three times as high.
  """
  warm_up = min(200, steps // 10 + 1, steps - 1)
  schedule = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm_up, steps, learning_rate / 100)
  decay = lambda params: jax.tree.map(lambda x: x.ndim > 1, params)
  adam = optax.adamw(schedule, b2=0.98, weight_decay=0.02, mask=decay)
  main = adam
  if name == "muon":
    main = optax.contrib.muon(
      lambda step: _MUON_FACTOR * schedule(step),
      weight_decay=0.02 / _MUON_FACTOR,
      weight_decay_mask=decay,
      adam_b2=0.98,
      adam_weight_decay=0.02,
      adam_learning_rate=schedule,
      muon_weight_dimension_numbers=_matrices,
      consistent_rms=0.2,
    )
  # The probes' large gradients must not clip the model's.
  transforms = {"model": optax.chain(optax.clip_by_global_norm(1.0), main), "probes": adam}
  return optax.partition(transforms, lambda params: {name: name for name in params})


def _matrices(params):
  """What Muon updates."""
  is_matrix = lambda path, x: x.ndim == 2 and "embed" not in jax.tree_util.keystr(path)
  return jax.tree_util.tree_map_with_path(
    lambda path, x: optax.contrib.MuonDimensionNumbers() if is_matrix(path, x) else None, params
  )


def split(params: dict[str, Any], part: str) -> tuple[dict[str, Any], dict[str, Any]]:
  """The parameters that a part of the training changes, and the others, each with the groups `model` and `probes`.

  Args:
    params: `model`, the model's parameters, and `probes`, of `losses.make_probes`.
    part: `decoder`, what reads the vision tower's output; `tower`, the rest, with the probes; or `all`.
  """
  changes = lambda name: part == "all" or (name in _AFTER_TOWER) == (part == "decoder")
  chosen = lambda wanted: {
    group: {name: tree for name, tree in trees.items() if changes(name) == wanted} for group, trees in params.items()
  }
  return chosen(True), chosen(False)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "auxiliary", "part"), donate_argnames="state")
def train_step(
  state: dict[str, Any], batch: batches.Batch, weight: float, *, model, optimizer, auxiliary: tuple[str, ...], part: str
) -> tuple[dict[str, Any], dict[str, jax.Array]]:
  """One step of the optimizer.

  Args:
    state: `params`; `opt_state`, by part; and perhaps a `curriculum`. Donated.
    batch: of `make_batch`.
    weight: factor of the auxiliary losses.
    model: a port.
    optimizer: of `make_optimizer`.
    auxiliary: names in `losses.AUXILIARY`.
    part: what is trained, see `split`. The tower alone learns what `losses.reading` asks for.

  Returns:
    The next state, and the terms of the loss and the share of right answers before the step.
  """
  stage = None if part == "tower" else state.get("curriculum")
  if stage:
    batch = curriculum.hide(stage, batch)
  trained, fixed = split(state["params"], part)

  def loss(trained):
    params = _join(trained, fixed)
    if part == "tower":
      return losses.reading(params, batch, model=model)
    return losses.total(params, batch, weight, model=model, auxiliary=auxiliary)

  grads, found = jax.grad(loss, has_aux=True)(trained)
  updates, opt_state = optimizer.update(grads, state["opt_state"][part], trained)
  state = state | {
    "params": _join(optax.apply_updates(trained, updates), fixed),
    "opt_state": state["opt_state"] | {part: opt_state},
  }
  if part == "tower":
    return state, found
  metrics, right = found
  metrics["right"] = right.mean()
  if stage:
    state["curriculum"] = curriculum.advance(stage, batch, right)
    metrics |= {f"others/{kind}": others for kind, others in zip(task.KINDS, stage.others)}
  return state, metrics


def _join(one, other):
  return {group: one[group] | other[group] for group in one}


@functools.partial(jax.jit, static_argnames="model")
def answered(params, batch, *, model) -> jax.Array:
  """[B, Q] bool, the questions that are answered correctly."""
  return losses.right(losses.forward(params, batch, model=model), batch)


def accuracy(params: dict[str, Any], student: embedded.Student, seed: int, size: int, questions: int) -> dict[str, float]:
  """Share of right answers by kind of question, on eight batches of the calibration split.

  Args:
    params: of the model.
    student: the model.
    seed: of the batches.
    size: pictures per batch.
    questions: per picture.
  """
  hits = {kind: [] for kind in task.KINDS}
  for number in range(8):
    batch = batches.make_batch(student, np.random.default_rng([seed, 2, number]), "calibration", size, questions)
    right = np.asarray(answered(params, batch, model=student.model))
    for kind, hit in zip(batch.kinds.ravel(), right.ravel()):
      hits[task.KINDS[kind]].append(hit)
  return {kind: float(np.mean(values)) for kind, values in hits.items() if values}
