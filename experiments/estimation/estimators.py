"""Estimators, in one table: how much does each head of the first layer matter for answers about pictures?

`ESTIMATORS` holds them by name; the class of an entry says what it needs:

  PerExample: function(model, params, batch, settings) -> [H, B], a score of every head for each example of a batch.
  Optimization: function(batches, settings, records) -> [H], weights found in many steps over batches of examples.
  Fixed: function(num_heads, settings) -> [H], weights that need neither examples nor parameters.

Axes: N examples, B batch, H heads of a layer, L tokens of the prompt, T answer tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import functools
from typing import Any, ClassVar
import warnings

import jax
import jax.numpy as jnp
import numpy as np

from experiments.estimation import learned
from experiments.estimation.data import Batch
from experiments.estimation.data import Batches
from experiments.running import method
from experiments.running.journal import Journal
from experiments.running.settings import option
from hawk_jax import checks
from hawk_jax import importance
from hawk_jax import prompt as prompt_lib
from models import sharding
from models import teacher_forcing
from models.decoder import Intervention

_OF_ALL = ("seed", "heads_at_once")  # settings that choose examples, and that no result depends on


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(method.Settings):
  """What estimators read; see `check_read`. The heads of `score_layer` are weighted."""

  scope: str = option(
    "first_layer",
    "Where a head is ablated: in the layer that scores, by default the first, or in all layers at once.",
    choices=("first_layer", "all_layers"),
  )
  mode: str = option(
    "zero_output",
    "How a head is ablated: its output is zero, or it does not attend to visual tokens.",
    choices=("zero_output", "mask_visual"),
  )
  metric: str = option(
    "accuracy",
    "Measure whose drop `ablation` reports: whether the greedy answer equals the reference, "
    "or the reference's log-likelihood.",
    choices=("accuracy", "log_likelihood"),
  )
  heads_at_once: int | None = option(
    None,
    "Ablations computed at the same time; fewer need less memory. By default 1 on "
    "CPU, since more exceed its caches, and 64 elsewhere.",
    least=1,
  )
  keep_ratio: float = option(0.1, "Share of visual tokens that `learned` learns to keep, in (0, 1].")
  steps: int = option(150, "Optimizer steps of `learned`.", least=1)
  learning_rate: float = option(0.1, "Learning rate of `learned`.", least=0.0)
  seed: int = option(0, "Seed of `random`, and of the choice of calibration examples.", least=0)

  def __post_init__(self):
    super().__post_init__()
    checks.share("keep_ratio", self.keep_ratio)


@dataclasses.dataclass(frozen=True)
class Estimate:
  """What an estimator found.

  Attributes:
    weights: [H] float32, non-negative, summing to 1.
    scores: for each data set, [H] mean score of every head; empty where an estimator has no such scores.
  """

  weights: np.ndarray
  scores: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Estimator:
  """A way to weight heads; one of the subclasses below.

  Attributes:
    function: with the signature of the subclass.
    options: names of the `Settings` that change the result, beside the seed.
    argument: name of the text that the user writes after the estimator's name and a colon, as HEAD in one_hot:HEAD; it is
      the function's first argument. None: the estimator takes no such text.
    journal: file that records what is finished, or None for an estimator that needs no examples.
  """

  function: Callable[..., Any]
  options: tuple[str, ...] = ()
  argument: str | None = None
  journal: ClassVar[str | None] = None


class PerExample(Estimator):
  """function(model, params, batch, settings) -> [H, B]: each head's score for each example; a larger score matters more.

  The mean scores of each data set become weights by `hawk_jax.importance.from_ablation`, so that scale and offset of the
  scores have no influence.
  """

  journal = "batches.jsonl"

  def estimate(self, batches: Batches, settings: Settings, records: Journal) -> Estimate:
    """Scores the batches that the journal does not hold yet."""
    for number in records.remaining(len(batches), "batch"):
      batch = batches[number]
      scores = self.function(batches.model, batches.params, batch, settings)
      records.append(
        {"datasets": batch.datasets, "scores": scores.T.tolist()},
        **{f"head {head}": float(score) for head, score in enumerate(scores.mean(axis=1))},
      )
    means = mean_scores(*scores_of(records.records))
    return Estimate(weights_of(means), means)


class Optimization(Estimator):
  """function(batches, settings, records) -> [H]: weights, from steps that resume after those in the journal `records`."""

  journal = "steps.jsonl"

  def estimate(self, batches: Batches, settings: Settings, records: Journal) -> Estimate:
    """Takes the steps that the journal does not hold yet."""
    return Estimate(self.function(batches, settings, records))


class Fixed(Estimator):
  """function(num_heads, settings) -> [H]: weights that need neither examples nor parameters."""

  def estimate(self, num_heads: int, settings: Settings) -> Estimate:
    """The weights for a model with so many heads."""
    return Estimate(self.function(num_heads, settings))


def check_read(name: str, settings: Settings) -> None:
  """Refuses settings that an estimator would ignore.

  Args:
    name: of the estimator.
    settings: given to it.

  Raises:
    ValueError: as `find`; a setting that the estimator does not read and that is not the default.
  """
  read = (*find(name).options, *_OF_ALL)
  for field in dataclasses.fields(Settings):
    value = getattr(settings, field.name)
    if field.name not in read and value != field.default:
      raise ValueError(f"{field.name}: got {value!r}, {name} does not read it; it must be {field.default!r}")


def scores_of(records: Iterable[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
  """Data sets [N] and scores [N, H] of all examples in the journal of a `PerExample`."""
  records = list(records)
  return (
    np.concatenate([record["datasets"] for record in records]),
    np.concatenate([record["scores"] for record in records]),
  )


def mean_scores(labels: np.ndarray, scores: np.ndarray) -> dict[str, np.ndarray]:
  """Mean score of every head on each data set.

  Args:
    labels: [N] name of each example's data set.
    scores: [N, H].

  Returns:
    [H] by data set, in the order of their first examples.
  """
  return {str(label): scores[labels == label].mean(axis=0) for label in dict.fromkeys(labels)}


def skipped(means: dict[str, np.ndarray]) -> list[str]:
  """The data sets of `mean_scores` on which all heads have the same score; they do not enter the weights."""
  return [dataset for dataset, values in means.items() if np.ptp(values) == 0]


def weights_of(means: dict[str, np.ndarray]) -> np.ndarray:
  """[H] float32 weights of `mean_scores`; `importance.from_ablation` without its warning of data sets that are skipped.

  Raises:
    ValueError: all data sets are skipped.
  """
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", UserWarning)
    return importance.from_ablation(np.stack(list(means.values()), axis=1))


def _verdict(params, arrays, gate, *, model, scope, mode, layer=0) -> teacher_forcing.Verdict:
  """Judges the reference answers of `arrays` (prompt, features, answers) under head gates [B, H]."""
  prompt, features, answers = arrays
  apply = functools.partial(model.apply, {"params": params})
  sequence = apply(prompt, features, method="prune")
  gates = jnp.ones([model.config.text.num_hidden_layers, *gate.shape])
  gates = gates.at[layer].set(gate) if scope == "first_layer" else gates * gate
  intervention = Intervention(head_gate=gates, hidden=sequence.visual if mode == "mask_visual" else None)
  prefill = apply(sequence, features, intervention, method="run")
  return apply(prompt, prefill, answers, intervention, method=teacher_forcing.judge)


def ablation(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """What is lost when a head is ablated (the paper's estimate), [H, B]."""
  at_once = settings.heads_at_once or (1 if jax.default_backend() == "cpu" else 64)
  drops = _ablate(
    params,
    (batch.prompt, batch.features, batch.answers),
    model=model,
    scope=settings.scope,
    mode=settings.mode,
    metric=settings.metric,
    layer=settings.score_layer,
    at_once=at_once,
  )
  return sharding.fetch(drops, model.mesh)


@functools.partial(jax.jit, static_argnames=("model", "scope", "mode", "metric", "layer", "at_once"))
def _ablate(params, arrays, *, model, scope, mode, metric, layer, at_once):
  heads, rows = model.config.text.num_attention_heads, arrays[2].shape[0]
  gates = jnp.concatenate([jnp.ones([1, heads]), 1 - jnp.eye(heads)])

  def judge(gate):
    gate = jnp.broadcast_to(gate, [rows, heads])
    verdict = _verdict(params, arrays, gate, model=model, scope=scope, mode=mode, layer=layer)
    return verdict.right.astype(jnp.float32) if metric == "accuracy" else verdict.log_likelihood

  scores = jax.lax.map(judge, gates, batch_size=min(at_once, heads + 1))
  return scores[0] - scores[1:]


def gradient(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """First-order estimate of the log-likelihood that ablation would cost, [H, B]: one backward pass, no ablation."""
  slope = _gradient(
    params,
    (batch.prompt, batch.features, batch.answers),
    model=model,
    scope=settings.scope,
    mode=settings.mode,
    layer=settings.score_layer,
  )
  return sharding.fetch(slope, model.mesh)


@functools.partial(jax.jit, static_argnames=("model", "scope", "mode", "layer"))
def _gradient(params, arrays, **static):
  ones = jnp.ones([arrays[2].shape[0], static["model"].config.text.num_attention_heads])
  total = lambda gate: _verdict(params, arrays, gate, **static).log_likelihood.sum()
  return jax.grad(total)(ones).T


def attention_mass(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """Share of the query tokens' attention in the layer that scores that a head puts on visual tokens, [H, B]."""
  mass = _attention_mass(params, batch.prompt, batch.features, model=model, layer=settings.score_layer)
  return sharding.fetch(mass, model.mesh)


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def _attention_mass(params, prompt, features, *, model, layer):
  def call(module):
    sequence = module.prune(prompt, features)
    at = prompt_lib.places(sequence.order, prompt.text_order)
    x, _ = module.language_model.blocks(sequence.embeddings, sequence.positions, 0, layer)
    weights = module.language_model.attention_weights(x, sequence.positions, at, layer)
    mass = jnp.einsum("BHQL,BL->BHQ", weights, sequence.visual.astype(jnp.float32))
    query = prompt.query_mask.astype(jnp.float32)
    return jnp.einsum("BHQ,BQ->HB", mass, query / jnp.maximum(query.sum(-1, keepdims=True), 1))

  return model.apply({"params": params}, method=call)


def question_sensitivity(model, params, batch: Batch, settings: Settings) -> np.ndarray:
  """1 - the correlation of a head's scores under two questions about one picture, [H, B]: no answers, no ablation.

  The other question is that of the example before it in the batch, asked about this picture. Where both are the same, as in
  a batch of one, all heads get 0.
  """
  found = _question_sensitivity(params, batch.prompt, batch.features, model=model, layer=settings.score_layer)
  return sharding.fetch(found, model.mesh)


@functools.partial(jax.jit, static_argnames=("model", "layer"))
def _question_sensitivity(params, prompt, features, *, model, layer):
  roll = lambda values: jnp.roll(values, 1, axis=0)
  other = prompt.replace(text_tokens=roll(prompt.text_tokens), query_mask=roll(prompt.query_mask))
  first, second = (model.apply({"params": params}, each, features, layer, method="scores") for each in (prompt, other))
  mean = lambda values: jnp.mean(values, axis=-1, keepdims=True, where=prompt.visual_mask[:, None])
  first, second = first - mean(first), second - mean(second)
  scale = jnp.sqrt(mean(first * first) * mean(second * second))
  correlation = jnp.where(scale > 1e-12, mean(first * second) / jnp.maximum(scale, 1e-12), 1.0)
  return (1 - correlation[..., 0]).T


def uniform(num_heads: int, settings: Settings) -> np.ndarray:
  """The same weight for every head, [H]."""
  del settings
  return np.full(num_heads, 1 / num_heads, np.float32)


def random(num_heads: int, settings: Settings) -> np.ndarray:
  """Weights that are uniformly distributed among all that sum to 1, [H]."""
  return np.random.default_rng(settings.seed).dirichlet(np.ones(num_heads)).astype(np.float32)


def one_hot(head: str, num_heads: int, settings: Settings) -> np.ndarray:
  """A single head, [H].

  Raises:
    ValueError: the model has no such head.
  """
  del settings
  if not head.isdecimal() or int(head) >= num_heads:
    raise ValueError(f"estimator: got one_hot:{head}, the model's first layer has heads 0 to {num_heads - 1}")
  return np.eye(num_heads, dtype=np.float32)[int(head)]


ESTIMATORS: dict[str, PerExample | Optimization | Fixed] = {
  "ablation": PerExample(ablation, options=("scope", "mode", "metric", "score_layer")),
  "gradient": PerExample(gradient, options=("scope", "mode", "score_layer")),
  "attention_mass": PerExample(attention_mass, options=("score_layer",)),
  "question_sensitivity": PerExample(question_sensitivity, options=("score_layer",)),
  "learned": Optimization(
    learned.learn, options=("keep_ratio", "steps", "learning_rate", "rounding", "normalization", "rope", "score_layer")
  ),
  "uniform": Fixed(uniform),
  "random": Fixed(random),
  "one_hot": Fixed(one_hot, argument="HEAD"),
}


def names() -> str:
  """The estimators, as the user writes them."""
  return ", ".join(f"{name}:{estimator.argument}" if estimator.argument else name for name, estimator in ESTIMATORS.items())


def find(name: str) -> PerExample | Optimization | Fixed:
  """The estimator of a NAME, or of NAME:ARGUMENT, whose function then has the argument bound.

  Raises:
    ValueError: an unknown name, an argument that is missing, or one too many.
  """
  base, colon, argument = name.partition(":")
  estimator = ESTIMATORS.get(base)
  if estimator is None or bool(colon) != bool(estimator.argument):
    raise ValueError(f"estimator: got {name!r}, allowed are {names()}")
  return dataclasses.replace(estimator, function=functools.partial(estimator.function, argument)) if colon else estimator
