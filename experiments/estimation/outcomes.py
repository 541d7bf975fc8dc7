"""Whether pruned models answer right, found without decoding, for one batch and one setting of pruning.

Axes: B batch, H heads.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np

from experiments.estimation.data import Batch
from hawk_jax.pruning import Pruning
from models import generation
from models import sharding
from models import stages
from models import teacher_forcing
from models.vision_language import Inputs


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
  pruning, inputs = variant.pruning, Inputs(batch.prompt, batch.vision)
  tower, limits = stages.plan_tower(model, inputs, pruning, variant.importance)
  features = generation.encode_pictures(model, params, inputs, (), tower) if tower else batch.features
  scores = batch.relevance if "scores" in pruning.rule.needs else None
  plan = generation.make_plan(model, batch.prompt, pruning, variant.importance, scores=scores, seeds=seeds, limits=limits)
  return sharding.fetch(_outcome(params, batch.prompt, features, batch.answers, plan, model=model), model.mesh)


@functools.partial(jax.jit, static_argnames="model")
def _outcome(params, prompt, features, answers, plan, *, model):
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(prompt, features, plan, method=stages.prefill)
  kept = (prefill.mean_lengths - prompt.text_counts) / prompt.visual_counts
  return apply(prompt, prefill, answers, method=teacher_forcing.judge).right, kept
