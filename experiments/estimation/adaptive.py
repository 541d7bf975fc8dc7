"""Adaptive budgets for a data set: tau from calibration examples; see `hawk_jax.budgets`."""

from __future__ import annotations

from collections.abc import Sequence
import functools

import jax
import numpy as np

from experiments import data
from hawk_jax import budgets
from hawk_jax import scoring
from models import sharding

# No prompt keeps more than this many times the mean: the static bound.
BOUND = 2.0


@functools.partial(jax.jit, static_argnames="model")
def fused_scores(params, prompt, features, head_importance, *, model) -> jax.Array:
  """[B, V] fused scores as pruning has them by default."""
  raw = model.apply({"params": params}, prompt, features, method="scores")
  return scoring.fuse(scoring.normalize(raw, prompt.visual_mask), head_importance)


def calibrate(model, params, processor, examples: Sequence[data.Example], head_importance: np.ndarray,
              keep_ratios: Sequence[float], batch_size: int) -> dict[float, dict[str, float]]:
  """What `generation.plan_pruning` is told so that prompts keep a share of their visual tokens on average.

  Args:
    model: a port.
    params: its parameters.
    processor: its processor.
    examples: for calibration.
    head_importance: [H] float32.
    keep_ratios: wanted mean shares.
    batch_size: examples scored at once.

  Returns:
    By share: `keep_mass`, and `keep_ratio`, the bound.
  """
  scores, masks = [], []
  for start in range(0, len(examples), batch_size):
    batch = data.make_batch(model, params, processor, examples[start:start + batch_size])
    fused = fused_scores(params, batch.prompt, batch.features, head_importance, model=model)
    scores.append(sharding.fetch(fused, model.mesh))
    masks.append(np.asarray(batch.prompt.visual_mask))
  width = max(mask.shape[1] for mask in masks)
  scores, masks = (np.concatenate([np.pad(x, ((0, 0), (0, width - x.shape[1]))) for x in rows]) for rows in (scores, masks))
  bounds = {ratio: min(1.0, BOUND * ratio) for ratio in keep_ratios}
  return {ratio: dict(keep_mass=budgets.calibrate(scores, masks, ratio, bound), keep_ratio=bound)
          for ratio, bound in bounds.items()}
