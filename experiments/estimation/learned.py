"""Learned head importance: the weights with which the pruned model gives the unpruned model's answers.

Axes: B batch, H heads, L tokens of the prompt, T answer tokens, V visual slots.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.estimation.data import Batch
from experiments.estimation.data import Batches
from experiments.running.journal import Journal
from hawk_jax import budgets
from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from models import generation
from models import sharding
from models import teacher_forcing
from models.decoder import Intervention
from models.vision_language import Inputs

# Temperature of the relaxed selection at the first step, and by how much it falls until the last step.
_START, _COOLING = 0.5, 0.4
_PLAIN = pruning.Pruning()


def learn(batches: Batches, settings, records: Journal) -> np.ndarray:
  """[H] float32 weights, by gradient descent on a relaxed selection; see `learn_step`.

  Args:
    batches: the calibration examples; their reference answers are not read.
    settings: `estimators.Settings`, of which keep_ratio, steps and learning_rate are read.
    records: journal of the state after each step.
  """
  model, optimizer = batches.model, optax.adam(settings.learning_rate)
  start = jnp.zeros(model.config.text.num_attention_heads)
  state = (start, optimizer.init(start))
  if records.records:
    leaves, tree = jax.tree.flatten(state)
    last = records.records[-1]["state"]
    state = jax.tree.unflatten(tree, [jnp.asarray(value, leaf.dtype) for value, leaf in zip(last, leaves)])
  prepared = {}
  for step in records.remaining(settings.steps, "step"):
    number = step % len(batches)
    if number not in prepared:
      batch = batches[number]
      prepared[number] = batch, own_answers(batches, batch)
    batch, answers = prepared[number]
    counts = budgets.keep_counts(
      np.asarray(batch.prompt.visual_counts), keep_ratio=settings.keep_ratio, rounding=settings.rounding
    )
    temperature = _START - _COOLING * step / settings.steps
    state, loss = learn_step(
      state,
      batches.params,
      batch.prompt,
      batch.features,
      answers,
      counts,
      temperature,
      model=model,
      optimizer=optimizer,
      settings=settings.pruning_of(),
    )
    state, loss = sharding.fetch((state, loss), model.mesh)
    state_leaves = [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(state)]
    records.append({"loss": float(loss), "state": state_leaves}, loss=float(loss))
  return np.asarray(jax.nn.softmax(state[0]))


def own_answers(batches: Batches, batch: Batch) -> np.ndarray:
  """Tokens of the unpruned model's answers, [B, T] int32 with T of the reference answers, -1 after each end."""
  length = batch.answers.shape[1]
  out = generation.generate(
    batches.model,
    batches.params,
    Inputs(batch.prompt, vision=None),
    features=batch.features,
    max_new_tokens=length,
    eos_token_ids=batches.processor.eos_token_ids,
  )
  tokens, lengths = np.asarray(out.tokens), np.asarray(out.lengths)
  return np.where(np.arange(length) < lengths[:, None], tokens, -1)


@functools.partial(jax.jit, static_argnames=("model", "optimizer", "settings"))
def learn_step(state, params, prompt, features, answers, counts, temperature, *, model, optimizer, settings=_PLAIN):
  """One step towards the weights with which the pruned model gives the unpruned model's answers.

  Selection is relaxed: each token is kept with a share, the sigmoid of how far its fused score is above a cut, such that the
  shares add up to the number of tokens to keep. The share's logarithm is added to all attention logits of the token.

  Args:
    state: (logits [H] of the weights, optimizer state).
    params: of the model.
    prompt: the packed prompts.
    features: of the vision encoder.
    answers: [B, T] tokens of the unpruned model, -1 on padding.
    counts: [B] int32, tokens to keep.
    temperature: of the sigmoid, in standard deviations of the row's scores.
    model: a port.
    optimizer: of optax.
    settings: how tokens are scored. In the layers before `score_layer`, the prompt's tokens see all visual tokens, and
      the answer's only those that are kept (`stages.packed`), hence shares have an influence there on the answer alone.

  Returns:
    The new state, and the loss before the step: minus the mean log-likelihood of the answers.
  """
  apply = functools.partial(model.apply, {"params": params})
  mask = prompt.visual_mask
  sequence = apply(prompt, features, method="prune")

  def loss(logits):
    # The keep_count has no influence on scores.
    plan = pruning.Plan(1, settings, head_importance=jax.nn.softmax(logits))
    fused = apply(prompt, features, plan, method="fused_scores")
    width = temperature * jax.lax.stop_gradient(jnp.std(fused, axis=-1, where=mask)) + 1e-12
    cut = budget_cut(fused, mask, counts, width)
    log_share = jax.nn.log_sigmoid((fused - cut[:, None]) / width[:, None])
    place = prompt_lib.places(sequence.order, prompt.visual_order)
    bias = jax.vmap(lambda at, values, real: jnp.zeros(sequence.order.shape[1]).at[at].add(jnp.where(real, values, 0.0)))(
      place, log_share, mask
    )
    everywhere = Intervention(key_bias=bias)
    prefill = apply(sequence, features, dataclasses.replace(everywhere, key_bias_from=settings.score_layer), method="run")
    return -apply(prompt, prefill, answers, everywhere, method=teacher_forcing.judge).log_likelihood.mean()

  logits, opt_state = state
  value, grads = jax.value_and_grad(loss)(logits)
  updates, opt_state = optimizer.update(grads, opt_state, logits)
  return (optax.apply_updates(logits, updates), opt_state), value


def budget_cut(scores: jax.Array, mask: jax.Array, counts: jax.Array, width: jax.Array) -> jax.Array:
  """Cuts [B] with which the shares of each row's tokens, sigmoid((score - cut) / width), add up to its count.

  Args:
    scores: [B, V].
    mask: [B, V] bool, True on real tokens.
    counts: [B] int32, tokens to keep.
    width: [B], of the sigmoid.
  """
  kept = lambda cut: jnp.where(mask, jax.nn.sigmoid((scores - cut[:, None]) / width[:, None]), 0.0)
  fixed = jax.lax.stop_gradient
  far = 20 * width  # where a share is 0 or 1 in float32
  low = jnp.where(mask, scores, jnp.inf).min(axis=-1) - far
  high = jnp.where(mask, scores, -jnp.inf).max(axis=-1) + far

  def halve(_, ends):
    low, high = ends
    middle = (low + high) / 2
    more = kept(middle).sum(axis=-1) > counts
    return jnp.where(more, middle, low), jnp.where(more, high, middle)

  low, high = jax.lax.fori_loop(0, 40, halve, (fixed(low), fixed(high)))
  cut = fixed((low + high) / 2)
  # A step of Newton's method changes the cut by nothing, but has its gradient.
  shares = kept(cut)
  slope = fixed((shares * (1 - shares)).sum(axis=-1) / width)
  return cut + (shares.sum(axis=-1) - fixed(shares.sum(axis=-1))) / jnp.maximum(slope, 1e-12)
