"""Slices of TPUs that are not there, and what a model would be given on them."""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os

import jax
from jax.experimental import topologies

from experiments import flops
from experiments import programs
from experiments import prompts

# A picture is at most this many times as long as wide.
_LONGEST = 4


def no_tpu() -> None:
  """Keeps JAX and libtpu from looking for devices; before JAX looks at its own."""
  jax.config.update("jax_platforms", "cpu")
  os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")


def slice_devices(topology: str) -> tuple[programs.Chip, list[jax.Device]]:
  """The chip and the devices of a slice.

  Args:
    topology: like v5e:2x4.

  Raises:
    ValueError: an unknown chip, a slice that does not exist, or no libtpu.
  """
  kind = topology.partition(":")[0]
  if kind not in programs.CHIPS:
    raise ValueError(f"topology: got {topology!r}, must be like v5e:2x4 with one of {', '.join(programs.CHIPS)}")
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError("topology: compiling for TPUs needs libtpu, install requirements-tpu.txt")
  try:
    return programs.CHIPS[kind], list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
  except Exception as error:  # libtpu raises what it likes
    raise ValueError(f"topology: {topology!r} is no slice that libtpu knows ({str(error).splitlines()[0]})") from error


def picture_size(config, visual_tokens: int | None) -> tuple[int, int]:
  """Height and width in pixels of a picture with so many visual tokens.

  Raises:
    ValueError: there is none.
  """
  if not hasattr(config, "vision_end_token_id"):
    if visual_tokens not in (None, config.vision.tokens):
      raise ValueError(f"visual_tokens: got {visual_tokens}, every picture of this model has {config.vision.tokens}")
    return config.vision.image_size, config.vision.image_size
  tokens = 4096 if visual_tokens is None else visual_tokens
  unit = config.vision.patch_size * config.vision.spatial_merge_size
  for rows in range(math.isqrt(tokens), 0, -1):
    if tokens % rows == 0 and tokens // rows <= _LONGEST * rows:
      return unit * rows, unit * (tokens // rows)
  raise ValueError(f"visual_tokens: got {tokens}, must be rows times columns of a picture at most {_LONGEST} times as long "
                   f"as wide, such as {math.isqrt(tokens) ** 2}")


def plan(model, size: tuple[int, int], batch: int, text_tokens: int):
  """Packed prompts without pixels: [B] prompts of one picture each, the tower's arrays as shapes, and its FLOPs."""
  light, vision = model, model.config.vision
  if hasattr(vision, "temporal_patch_size"):
    # Where patches go does not depend on what they hold, and they are the bulk of what is packed.
    vision = dataclasses.replace(vision, in_channels=1, temporal_patch_size=1)
    light = model.clone(config=dataclasses.replace(model.config, vision=vision))
  arrays = prompts.make_batch(light, [size] * batch, text_tokens, None)
  inputs = light.pack(**arrays)
  shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs.vision)
  if light is not model:
    patches = shapes.patches
    full = jax.ShapeDtypeStruct(patches.shape[:-1] + (model.config.vision.patch_dim,), patches.dtype)
    shapes = shapes.replace(patches=full)
  return inputs.prompt, shapes, flops.vision(model.config, arrays)
