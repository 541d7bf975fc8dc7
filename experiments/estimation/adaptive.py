"""Adaptive budgets for a data set: `keep_mass` from calibration examples; see `hawk_jax.budgets`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from experiments.estimation.data import Batches
from experiments.estimation.sources import Importance
from hawk_jax import budgets
from hawk_jax import pruning
from models import generation
from models import sharding

# No prompt keeps more than this many times the mean share, which bounds the static number of slots.
BOUND = 2.0


def calibrate(
  batches: Batches, rows: Mapping[str, Importance], keep_ratios: Sequence[float], settings: pruning.Pruning
) -> dict[str, dict[float, pruning.Pruning]]:
  """Settings with which prompts keep given shares of their visual tokens on average.

  Args:
    batches: calibration examples.
    rows: head importance by name.
    keep_ratios: the wanted mean shares.
    settings: how tokens are scored.

  Returns:
    By name and share: a `Pruning` with `keep_mass`, and with `keep_ratio` as the bound.
  """
  model, scores, masks = batches.model, {name: [] for name in rows}, []
  own = {name: dataclasses.replace(settings, head_weights=each.head_weights) for name, each in rows.items()}
  for batch in batches if rows else ():
    masks.append(np.asarray(batch.prompt.visual_mask))
    for name, each in rows.items():
      plan = pruning.Plan(1, own[name], head_importance=each.weights)  # its keep_count has no influence on scores
      fused = generation.fused_scores(batches.params, batch.prompt, batch.features, plan, model=model)
      scores[name].append(sharding.fetch(fused, model.mesh))

  def find(name, ratio):
    bound = min(1.0, BOUND * ratio)
    mass = budgets.calibrate(_stack(scores[name]), _stack(masks), ratio, bound)
    return dataclasses.replace(own[name], keep_mass=mass, keep_ratio=bound)

  return {name: {ratio: find(name, ratio) for ratio in keep_ratios} for name in rows}


def _stack(arrays: Sequence[np.ndarray]) -> np.ndarray:
  """[N, V] of arrays [B, V], whose visual slots may differ in number."""
  width = max(array.shape[1] for array in arrays)
  return np.concatenate([np.pad(array, ((0, 0), (0, width - array.shape[1]))) for array in arrays])
