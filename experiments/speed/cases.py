"""Prompts of noise to measure, and how each is pruned."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import jax
import numpy as np

from experiments.running import command
from experiments.running import processes
from hawk_jax.pruning import Plan
from hawk_jax.pruning import Pruning
from models import generation
from models import sharding
from models import stages
from models.tower import TowerPlan
from models.vision_language import Inputs
from models.vision_language import VisionLanguageModel

# Heights of a batch of pictures of different sizes, as shares of their width.
MIXED_HEIGHTS = (1, 0.75, 0.5, 1.25)

KEEP_RATIO = "Share of the visual tokens to keep; repeat the flag for several. The unpruned prompt is always measured too."


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of commands that measure prompts at several shares."""

  keep_ratio: tuple[float, ...] = command.option((0.4, 0.198, 0.1), KEEP_RATIO)
  mesh: str | None = command.option(
    None, "How the model is spread over devices, such as data:2,fsdp:2,tensor:2. By default it is on one device."
  )

  def __post_init__(self):
    super().__post_init__()
    for ratio in self.keep_ratio:
      Pruning(keep_ratio=ratio)

  @property
  def ratios(self) -> list[float]:
    """The unpruned prompt first."""
    return list(dict.fromkeys([1.0, *self.keep_ratio]))

  def make_mesh(self) -> jax.sharding.Mesh | None:
    """The mesh of these settings; None: one device.

    Raises:
      ValueError: a mesh that the devices cannot form.
    """
    return processes.mesh(self.mesh) if self.mesh else None


@dataclasses.dataclass(frozen=True)
class Case:
  """A batch of prompts and how it is pruned.

  Attributes:
    name: of the case, in tables.
    inputs: packed, on the device, or on those of the model's mesh.
    plan: None keeps all tokens.
    tower: stage in the vision tower, or None.
    visual: visual tokens of each prompt.
    tokens: tokens of each prompt that enter the decoder.
  """

  name: str
  inputs: Inputs
  plan: Plan | None
  tower: TowerPlan | None
  visual: np.ndarray
  tokens: np.ndarray


def make(model: VisionLanguageModel, arrays: dict[str, np.ndarray], pruning: Pruning, name: str) -> Case:
  """Packs and plans a batch.

  Args:
    model: a port.
    arrays: of its `synthetic_batch`, or of a processor.
    pruning: the settings.
    name: of the case.
  """
  inputs = model.pack(**arrays)
  tower, limits = stages.plan_tower(model, inputs, pruning)
  plan = generation.make_plan(model, inputs.prompt, pruning, limits=limits)
  visual = inputs.prompt.visual_counts
  kept: Any = visual if plan is None or plan.counts is None else plan.counts
  return Case(name, _on_devices(inputs, model.mesh), plan, tower, visual, inputs.prompt.text_counts + kept)


def _on_devices(inputs: Inputs, mesh: jax.sharding.Mesh | None) -> Inputs:
  """The arrays where programs read them: pictures split over a mesh, prompts on all of its devices."""
  if mesh is None:
    return jax.device_put(inputs)
  everywhere = jax.sharding.NamedSharding(mesh, sharding.P())
  return dataclasses.replace(
    inputs, prompt=jax.device_put(inputs.prompt, everywhere), vision=sharding.place(inputs.vision, mesh)
  )


def merge(batches: Sequence[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
  """One batch of several: arrays are joined along their first axis, and padded with zeros along the others.

  Zeros are what processors pad with, in tokens, masks and tiles.
  """

  def join(arrays):
    shape = np.max([array.shape[1:] for array in arrays], axis=0).astype(int).tolist()
    grow = lambda array: [(0, 0)] + [(0, most - size) for most, size in zip(shape, array.shape[1:])]
    return np.concatenate([np.pad(array, grow(array)) for array in arrays])

  return {name: join([batch[name] for batch in batches]) for name in batches[0]}
