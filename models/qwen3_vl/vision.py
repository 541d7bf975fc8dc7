"""Vision tower of Qwen3-VL, with static shapes: full attention in each temporal slice, and several levels of features.

Axes: R rows, W merged tokens per row, U patches per merged token (2 x 2), C values per patch, I temporal slices, L merged
tokens per slice, K table entries per patch, D hidden size, O language hidden size.

Merged tokens are in reading order, W in a row; rows only divide the work among devices. Positions are learned on a square
table and interpolated to each picture's grid: the host says which entries a patch takes, and how much of each.
"""

from __future__ import annotations

import dataclasses
import functools
import math

from einops import rearrange
from flax import linen as nn
from flax import struct
import jax
import numpy as np

from hawk_jax.buckets import bucket
from models import rope
from models import sharding
from models.cpu import dot_general
from models.qwen_vl import config as qwen_vl_config
from models.qwen_vl import grids as grids_lib
from models.qwen_vl import subset
from models.qwen_vl.vision import PatchEmbed
from models.qwen_vl.vision import plan_slices
from models.qwen_vl.vision import ROW_STEPS
from models.qwen_vl.vision import VisionAttention
from models.tower import TowerStage

_WIDTH = 16  # W


@dataclasses.dataclass(frozen=True)
class VisionConfig(qwen_vl_config.VisionConfig):
  """Shapes of the tower; names follow the checkpoints' config.json.

  Attributes:
    num_position_embeddings: entries of the square table of positions.
    deepstack_visual_indexes: blocks whose output becomes a level of features, ascending.
  """

  patch_size: int = 16
  num_position_embeddings: int = 2304
  deepstack_visual_indexes: tuple[int, ...] = (8, 16, 24)

  @property
  def table_side(self) -> int:
    """Entries along the side of the table of positions."""
    return math.isqrt(self.num_position_embeddings)


@struct.dataclass
class VisionInputs:
  """All pictures and videos of a batch.

  Attributes:
    patches: [R, W, U, C] pixels, 0 on padding.
    positions: [R, W, U, 2] int32, row and column of each patch.
    table_entries: [R, W, U, K] int32, the entries of the table of positions that a patch takes.
    table_weights: [R, W, U, K] float32, how much of each.
    slice_slots: [I, L] int32, merged tokens of each temporal slice in reading order; padding last, -1.
    slot_places: [R, W] int32, index of each merged token in the flattened slices (i * L + l); 0 on padding.
  """

  patches: jax.Array
  positions: jax.Array
  table_entries: jax.Array
  table_weights: jax.Array
  slice_slots: jax.Array
  slot_places: jax.Array

  @property
  def layout(self) -> subset.Layout:
    """Which merged tokens attend to one another."""
    return subset.Layout(self.slice_slots, self.slot_places)


def plan(pixels: np.ndarray, grids: np.ndarray, config: VisionConfig, shards: int = 1) -> VisionInputs:
  """Arranges patches for the tower, on the host.

  Args:
    pixels: [patches, C], one picture after the other in the order of Hugging Face processors (merged token by merged
      token, U patches each).
    grids: [pictures, 3] temporal, height and width in patches; sides divisible by the merge size.
    shards: the number of rows is a multiple of it.

  Returns:
    The tower's arrays, padded to buckets; row i of its result belongs to merged token i.
  """
  merge, unit = config.spatial_merge_size, config.merge_unit
  slices, positions, entries, weights = [], [], [], []
  start = 0
  for frames, height, width in np.asarray(grids).tolist():
    place = grids_lib.places(height, width, merge)
    taken, share = interpolation(place, (height, width), config.table_side)
    for _ in range(frames):
      slices.append(np.arange(start, start + len(place)))
      positions.append(place)
      entries.append(taken)
      weights.append(share)
      start += len(place)
  rows = -(-bucket(-(-start // _WIDTH), minimum=4, steps=ROW_STEPS) // shards) * shards
  slice_slots, places = plan_slices(slices, np.arange(start))

  def lay_out(values, dtype):
    out = np.zeros((rows * _WIDTH, *values.shape[1:]), dtype)
    out[:start] = values
    return out.reshape(rows, _WIDTH, *values.shape[1:])

  return VisionInputs(
    patches=lay_out(np.asarray(pixels).reshape(start, unit, config.patch_dim), np.float32),
    positions=lay_out(np.concatenate(positions), np.int32),
    table_entries=lay_out(np.concatenate(entries), np.int32),
    table_weights=lay_out(np.concatenate(weights), np.float32),
    slice_slots=slice_slots,
    slot_places=lay_out(places, np.int32),
  )


def interpolation(places: np.ndarray, shape: tuple[int, int], side: int) -> tuple[np.ndarray, np.ndarray]:
  """Bilinear interpolation of a square table on a grid whose corners are the table's corners.

  Row i of h rows is at i * (side - 1) / (h - 1) in the table, and likewise for columns.

  Args:
    places: [..., 2] row and column of patches.
    shape: (h, w) of the grid.
    side: of the table.

  Returns:
    [..., 4] int entries of the flattened table, and their float32 weights.
  """
  at = places.astype(np.float32) * np.float32(side - 1) / np.maximum(np.asarray(shape, np.float32) - 1, 1)
  low = np.floor(at)
  part = at - low
  low = low.astype(np.int64)
  rows, columns = (np.stack([low[..., axis], np.minimum(low[..., axis] + 1, side - 1)], axis=-1) for axis in (0, 1))
  high, wide = (np.stack([1 - part[..., axis], part[..., axis]], axis=-1) for axis in (0, 1))
  entries = rows[..., :, None] * side + columns[..., None, :]
  weights = high[..., :, None] * wide[..., None, :]
  return rearrange(entries, "... a b -> ... (a b)"), rearrange(weights, "... a b -> ... (a b)")


def _layer_norm() -> nn.LayerNorm:
  return nn.LayerNorm(1e-6, use_fast_variance=False)


class VisionMLP(nn.Module):
  """Two linear layers with a GELU between them."""

  width: int
  size_out: int
  approximate: bool
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.linear_fc1 = nn.Dense(self.width, dot_general=dot_general)
    self.linear_fc2 = nn.Dense(self.size_out, dot_general=dot_general)

  def __call__(self, x):
    return self.linear_fc2(sharding.width(nn.gelu(self.linear_fc1(x), approximate=self.approximate), self.mesh))


class VisionBlock(nn.Module):
  """Pre-norm transformer block."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.norm1 = _layer_norm()
    self.attn = VisionAttention(config, self.mesh)
    self.norm2 = _layer_norm()
    self.mlp = VisionMLP(config.intermediate_size, config.hidden_size, approximate=True, mesh=self.mesh)

  def __call__(self, x, rotation, layout):
    x = sharding.residual(x + self.attn(self.norm1(x), rotation, layout), self.mesh)
    return sharding.residual(x + self.mlp(self.norm2(x)), self.mesh)


class PatchMerger(VisionMLP):
  """An MLP over the U patches of each merged token, normalized one by one, or all U together."""

  unit: int = 4
  together: bool = False

  def setup(self):
    super().setup()
    self.norm = _layer_norm()

  def __call__(self, x):
    """[R, W * U, D] to [R * W, O]."""
    merge = lambda x: rearrange(x, "R (W U) D -> R W (U D)", U=self.unit)
    x = self.norm(merge(x)) if self.together else merge(self.norm(x))
    return rearrange(super().__call__(x), "R W O -> (R W) O")


def make_merger(config: VisionConfig, mesh: jax.sharding.Mesh | None = None, together: bool = False) -> PatchMerger:
  """A merger of the tower's sizes."""
  width, unit = config.merge_unit * config.hidden_size, config.merge_unit
  return PatchMerger(width, config.out_hidden_size, approximate=False, mesh=mesh, unit=unit, together=together)


class VisionTower(nn.Module):
  """Patches to merged visual tokens, and to what the decoder adds to them."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.patch_embed = PatchEmbed(config, use_bias=True)
    self.pos_embed = nn.Embed(config.num_position_embeddings, config.hidden_size)
    self.blocks = [VisionBlock(config, self.mesh) for _ in range(config.depth)]
    merger = functools.partial(make_merger, config, self.mesh)
    self.merger = merger()
    self.deepstack_merger_list = [merger(together=True) for _ in config.deepstack_visual_indexes]

  def __call__(self, inputs: VisionInputs) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    """Encodes all pictures of a batch.

    Args:
      inputs: of `plan`.

    Returns:
      [R * W, O] features, one row per merged token, and as many for each DeepStack level; those of padding have no meaning.
    """
    x, levels, *_ = self.run(inputs)
    return self.merger(x), levels

  def run(
    self, inputs: VisionInputs, saliency: bool = False, stage: TowerStage | None = None
  ) -> tuple[jax.Array, tuple[jax.Array, ...], jax.Array | None, jax.Array | None]:
    """The blocks, without the last merger.

    Args:
      inputs: of `plan`.
      saliency: whether to measure the attention that merged tokens receive in the last block.
      stage: after which only some of the merged tokens go on; None: all do.

    Returns:
      [S, W * U, D] hidden states; the DeepStack levels; the saliency of each merged token, [R * W] float32, or None; and
      [R * W] int32, for each merged token its place among the S * W whose states these are, -1 if it was removed; None: they
      are all.
    """
    flat = lambda values: rearrange(values, "R W U A -> R (W U) A")
    x = self.patch_embed(flat(inputs.patches))
    entries, weights = flat(inputs.table_entries), flat(inputs.table_weights)
    # Entry by entry: the entries of all patches side by side would be four times as large as x.
    x += sum(self.pos_embed(entries[..., k]) * weights[..., k, None] for k in range(4)).astype(x.dtype)
    x = sharding.residual(x, self.mesh)
    frequencies = rope.grid_frequencies(self.config.hidden_size // self.config.num_heads)
    rotation = rope.rotation(flat(inputs.positions), frequencies)
    received, levels = None, ()
    stop = self.config.depth if stage is None else stage.plan.layer
    for number in range(stop):
      block = self.blocks[number]
      if saliency and number == self.config.depth - 1:
        received = block.attn.received(block.norm1(x), rotation, inputs.layout)
      before, x = x, block(x, rotation, inputs.layout)
      levels += self._level(number, x)
    if stage is None:
      return x, levels, received, None
    staged = subset.Staged(stage, inputs.layout, before, x, self.merger, self.mesh)
    levels = tuple(map(staged.narrow, levels))
    x, rotation = staged.take(x), tuple(map(staged.take, rotation))
    for number in range(stop, self.config.depth):
      x = self.blocks[number](x, rotation, staged.layout)
      levels += self._level(number, x, staged.finish)
    return staged.finish(x), levels, received, staged.rows

  def _level(self, number, x, finish=lambda x: x):
    """The DeepStack level that a block makes, if any."""
    indexes = self.config.deepstack_visual_indexes
    return (self.deepstack_merger_list[indexes.index(number)](finish(x)),) if number in indexes else ()
