"""How much each head of the first layer matters for answers about pictures: estimates, one function each.

An estimator is a function `(model, params, batch, settings) -> [H, B]`: for every example of a batch, each head's score,
the higher the more it matters. `hawk_jax.importance.from_ablation` turns their means over data sets into head importance.

Axes: B batch, H heads of a layer, L tokens of the prompt, T answer tokens, V visual slots.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.data import Batch
from hawk_jax import prompt as prompt_lib
from hawk_jax import scoring
from models import sharding
from models import teacher_forcing
from models.decoder import Intervention


@dataclasses.dataclass(frozen=True)
class Settings:
  """What estimators can be told.

  Attributes:
    scope: `first_layer`, or `all_layers`: the heads of one number in all layers go together.
    mode: an ablated head's output is zero (`zero_output`), or it does not see visual tokens (`mask_visual`).
    metric: `accuracy` (greedy answer equals the reference), or `log_likelihood` of the reference.
    heads_at_once: ablations computed side by side; fewer need less memory. None: one on CPU, whose caches hold no more, and
      64 elsewhere.
  """

  scope: str = "first_layer"
  mode: str = "zero_output"
  metric: str = "accuracy"
  heads_at_once: int | None = None


def _verdict(params, batch_arrays, gate, *, model, settings):
  """Verdict under head gates [B, H]."""
  prompt, features, answers = batch_arrays
  apply = functools.partial(model.apply, {"params": params})
  sequence = apply(prompt, features, method="prune")
  gates = jnp.ones([model.config.text.num_hidden_layers, *gate.shape])
  gates = gates.at[0].set(gate) if settings.scope == "first_layer" else gates * gate
  intervention = Intervention(head_gate=gates, hidden=sequence.visual if settings.mode == "mask_visual" else None)
  prefill = apply(sequence, intervention, method="run")
  return apply(prompt, prefill, answers, intervention, method=teacher_forcing.judge)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _ablate(params, batch_arrays, *, model, settings):
  heads, rows = model.config.text.num_attention_heads, batch_arrays[2].shape[0]
  gates = jnp.concatenate([jnp.ones([1, heads]), 1 - jnp.eye(heads)])

  def judge(gate):
    verdict = _verdict(params, batch_arrays, jnp.broadcast_to(gate, [rows, heads]), model=model, settings=settings)
    return verdict.right.astype(jnp.float32) if settings.metric == "accuracy" else verdict.log_likelihood

  at_once = settings.heads_at_once or (1 if jax.default_backend() == "cpu" else 64)
  scores = jax.lax.map(judge, gates, batch_size=min(at_once, heads + 1))
  return scores[0] - scores[1:]


def ablation(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """What the score loses when a head is ablated (the paper's estimate)."""
  return sharding.fetch(_ablate(params, (batch.prompt, batch.features, batch.answers), model=model, settings=settings),
                        model.mesh)


@functools.partial(jax.jit, static_argnames=("model", "settings"))
def _gradient(params, batch_arrays, *, model, settings):
  ones = jnp.ones([batch_arrays[2].shape[0], model.config.text.num_attention_heads])
  total = lambda gate: _verdict(params, batch_arrays, gate, model=model, settings=settings).log_likelihood.sum()
  return jax.grad(total)(ones).T


def gradient(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """First-order estimate of the log-likelihood that ablation would cost: one backward pass, no ablation."""
  return sharding.fetch(_gradient(params, (batch.prompt, batch.features, batch.answers), model=model, settings=settings),
                        model.mesh)


@functools.partial(jax.jit, static_argnames="model")
def _attention_mass(params, prompt, features, *, model):
  def call(module):
    sequence = module.prune(prompt, features)
    at = prompt_lib.places(sequence.order, prompt.text_order)
    weights = module.language_model.attention_weights(sequence.embeddings, sequence.positions, at, 0)
    mass = jnp.einsum("BHQL,BL->BHQ", weights, sequence.visual.astype(jnp.float32))
    query = prompt.query_mask.astype(jnp.float32)
    return jnp.einsum("BHQ,BQ->HB", mass, query / jnp.maximum(query.sum(-1, keepdims=True), 1))

  return model.apply({"params": params}, method=call)


def attention_mass(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """Share of the query tokens' first-layer attention that a head puts on visual tokens."""
  del settings
  return sharding.fetch(_attention_mass(params, batch.prompt, batch.features, model=model), model.mesh)


ESTIMATORS = {"ablation": ablation, "gradient": gradient, "attention_mass": attention_mass}


@functools.partial(jax.jit, static_argnames=("model", "optimizer"))
def learn_step(state, params, prompt, features, answers, counts, temperature, *, model, optimizer):
  """One step towards the importance with which the pruned model gives the unpruned model's answers.

  Selection is relaxed: a token is in by the sigmoid of how far its fused score lies above the score at the cut, and that
  share's logarithm is added to every attention logit of it.

  Args:
    state: (logits [H] of the importance, optimizer state).
    params: of the model.
    prompt: packed.
    features: of the vision encoder.
    answers: [B, T] of the unpruned model, -1 on padding.
    counts: [B] int32, tokens to keep.
    temperature: of the sigmoid, in deviations of the row's scores.
    model: a port.
    optimizer: of optax.

  Returns:
    The state, and the loss before the step: minus the mean log-likelihood of the answers.
  """
  apply = functools.partial(model.apply, {"params": params})
  mask = prompt.visual_mask
  scores = scoring.normalize(apply(prompt, features, method="scores"), mask, "l2")
  sequence = apply(prompt, features, method="prune")

  def loss(logits):
    fused = scoring.fuse(scores, jax.nn.softmax(logits))
    ranked = jnp.sort(jnp.where(mask, fused, -jnp.inf), axis=-1)[:, ::-1]
    pick = jax.vmap(lambda row, index: row[index])
    last = jnp.minimum(counts, mask.sum(-1) - 1)
    cut = jax.lax.stop_gradient((pick(ranked, counts - 1) + pick(ranked, last)) / 2)
    deviation = jax.lax.stop_gradient(jnp.std(fused, axis=-1, where=mask))
    inside = jax.nn.log_sigmoid((fused - cut[:, None]) / (temperature * deviation[:, None] + 1e-12))
    place = prompt_lib.places(sequence.order, prompt.visual_order)
    bias = jax.vmap(lambda at, values, real: jnp.zeros(sequence.order.shape[1]).at[at].add(jnp.where(real, values, 0.0)))(
        place, inside, mask)
    intervention = Intervention(key_bias=bias)
    prefill = apply(sequence, intervention, method="run")
    return -apply(prompt, prefill, answers, intervention, method=teacher_forcing.judge).log_likelihood.mean()

  logits, opt_state = state
  value, grads = jax.value_and_grad(loss)(logits)
  updates, opt_state = optimizer.update(grads, opt_state, logits)
  return (optax.apply_updates(logits, updates), opt_state), value
