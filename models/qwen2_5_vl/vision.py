"""Vision tower of Qwen2.5-VL, with static shapes: windows are a batch axis.

Axes: R rows, W merged tokens per row (as many as a full window has), U patches per merged token (2 x 2), P = R * W * U
patches, C values per patch, I temporal slices, L merged tokens per slice, N heads, d head dim, D hidden size, O language
hidden size.

A picture's merged tokens are arranged window by window, and a full window fills one row. Ragged windows at the edges share
rows, distinguished by their ids, so that there is little padding. Only its rotary position says where a patch is in its
picture. The blocks with full attention gather each temporal slice from the rows and scatter it back.
"""

from __future__ import annotations

import dataclasses

from einops import rearrange
from flax import linen as nn
from flax import struct
import jax
import numpy as np

from hawk_jax.buckets import bucket
from models import rope
from models import sharding
from models.cpu import dot_general
from models.decoder import MLP
from models.qwen_vl import config as qwen_vl_config
from models.qwen_vl import grids as grids_lib
from models.qwen_vl import subset
from models.qwen_vl.vision import PatchEmbed
from models.qwen_vl.vision import plan_slices
from models.qwen_vl.vision import ROW_STEPS
from models.qwen_vl.vision import VisionAttention
from models.tower import TowerStage


@dataclasses.dataclass(frozen=True)
class VisionConfig(qwen_vl_config.VisionConfig):
  """Shapes of the tower; names follow the checkpoints' config.json."""

  fullatt_block_indexes: tuple[int, ...] = (7, 15, 23, 31)
  window_size: int = 112
  tokens_per_second: int = 2

  @property
  def window_side(self) -> int:
    """Merged tokens along a window's side."""
    return self.window_size // self.spatial_merge_size // self.patch_size


@struct.dataclass
class VisionInputs:
  """All pictures and videos of a batch.

  Attributes:
    patches: [R, W, U, C] pixels, 0 on padding.
    positions: [R, W, U, 2] int32, row and column of each patch.
    window_ids: [R, W] int32, distinguishes the windows that share a row; -1 on padding.
    slice_slots: [I, L] int32, slots (r * W + w) of each temporal slice in reading order; padding last, -1.
    slot_places: [R, W] int32, index of each slot in the flattened slices (i * L + l); 0 on padding.
  """

  patches: jax.Array
  positions: jax.Array
  window_ids: jax.Array
  slice_slots: jax.Array
  slot_places: jax.Array

  @property
  def layout(self) -> subset.Layout:
    """Which merged tokens attend to one another."""
    return subset.Layout(self.slice_slots, self.slot_places, self.window_ids)


def plan(pixels: np.ndarray, grids: np.ndarray, config: VisionConfig, shards: int = 1) -> tuple[VisionInputs, np.ndarray]:
  """Arranges patches for the tower, on the host.

  A picture of 2 x 3 merged tokens, numbered 0 to 5 in reading order, with windows of 2 x 2 tokens (W = 4), has one full
  window, 0 1 3 4, and one ragged window, 2 5 (without the padding of rows to a bucket):

    rows          [[0, 1, 3, 4], [2, 5, -, -]]
    window_ids    [[0, 0, 0, 0], [0, 0, -1, -1]]
    slice_slots   [[0, 1, 4, 2, 3, 5]]              the slot of each token, in reading order
    slot_places   [[0, 1, 3, 4], [2, 5, 0, 0]]      the token in each slot

  Args:
    pixels: [patches, C], one picture after the other in the order of Hugging Face processors (merged token by merged
      token, U patches each).
    grids: [pictures, 3] temporal, height and width in patches; sides divisible by the merge size.
    shards: the number of rows is a multiple of it.

  Returns:
    The tower's arrays, padded to buckets, and [merged tokens] int32: the slot of each, in reading order.
  """
  merge, side, unit = config.spatial_merge_size, config.window_side, config.merge_unit
  width = side * side
  full, ragged, slices, positions = [], [], [], []
  start = 0
  for frames, height, columns in np.asarray(grids).tolist():
    rows, cols = height // merge, columns // merge
    place = grids_lib.places(height, columns, merge)
    for _ in range(frames):
      tokens = np.arange(start, start + rows * cols, dtype=np.int32).reshape(rows, cols)
      for top in range(0, rows, side):
        for left in range(0, cols, side):
          window = tokens[top : top + side, left : left + side].reshape(-1)
          (full if len(window) == width else ragged).append(window)
      slices.append(tokens.reshape(-1))
      positions.append(place)
      start += rows * cols

  windows = [[window] for window in full] + _fill_rows(ragged, width)
  row_count = -(-bucket(len(windows), minimum=4, steps=ROW_STEPS) // shards) * shards
  slots = np.full([row_count, width], -1, np.int32)
  window_ids = np.full([row_count, width], -1, np.int32)
  for row, members in enumerate(windows):
    filled = 0
    for number, window in enumerate(members):
      slots[row, filled : filled + len(window)] = window
      window_ids[row, filled : filled + len(window)] = number
      filled += len(window)

  real = slots.reshape(-1) >= 0
  tokens = slots.reshape(-1)[real]
  slot_of_token = np.zeros(start, np.int32)
  slot_of_token[tokens] = np.flatnonzero(real)

  slice_slots, place_of_token = plan_slices(slices, slot_of_token)

  def lay_out(values, shape):
    out = np.zeros((row_count * width,) + shape, values.dtype)
    out[real] = values.reshape((start,) + shape)[tokens]
    return out.reshape((row_count, width) + shape)

  inputs = VisionInputs(
    patches=lay_out(np.asarray(pixels, np.float32), (unit, config.patch_dim)),
    positions=lay_out(np.concatenate(positions).astype(np.int32), (unit, 2)),
    window_ids=window_ids,
    slice_slots=slice_slots,
    slot_places=lay_out(place_of_token, ()),
  )
  return inputs, slot_of_token


def _fill_rows(windows: list[np.ndarray], width: int) -> list[list[np.ndarray]]:
  """Best fit, largest first: each window goes to the fullest row that still has room for it."""
  open_rows: dict[int, list[list[np.ndarray]]] = {room: [] for room in range(width + 1)}
  rows = []
  for window in sorted(windows, key=len, reverse=True):
    room = next((r for r in range(len(window), width) if open_rows[r]), None)
    if room is None:
      row, room = [], width
      rows.append(row)
    else:
      row = open_rows[room].pop()
    row.append(window)
    open_rows[room - len(window)].append(row)
  return rows


class VisionBlock(nn.Module):
  """Pre-norm transformer block."""

  config: VisionConfig
  full: bool
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.norm1 = nn.RMSNorm(1e-6)
    self.attn = VisionAttention(config, self.mesh)
    self.norm2 = nn.RMSNorm(1e-6)
    self.mlp = MLP(config.hidden_size, config.intermediate_size, use_bias=True, mesh=self.mesh)

  def __call__(self, x, rotation, layout):
    attended = self.attn(self.norm1(x), rotation, layout, in_windows=not self.full)
    x = sharding.residual(x + attended, self.mesh)
    return sharding.residual(x + self.mlp(self.norm2(x)), self.mesh)


class PatchMerger(nn.Module):
  """Norm, then an MLP over the U patches of each merged token."""

  config: VisionConfig

  def setup(self):
    self.ln_q = nn.RMSNorm(1e-6)
    # A list names its layers as the checkpoints do: mlp.0, (gelu), mlp.2.
    self.mlp = [
      nn.Dense(self.config.hidden_size * self.config.merge_unit, dot_general=dot_general),
      lambda x: nn.gelu(x, approximate=False),
      nn.Dense(self.config.out_hidden_size, dot_general=dot_general),
    ]

  def __call__(self, x):
    x = rearrange(self.ln_q(x), "R (W U) D -> (R W) (U D)", U=self.config.merge_unit)
    for layer in self.mlp:
      x = layer(x)
    return x


class VisionTower(nn.Module):
  """Patches to merged visual tokens."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.patch_embed = PatchEmbed(config)
    full = [number in config.fullatt_block_indexes for number in range(config.depth)]
    self.blocks = [VisionBlock(config, each, self.mesh) for each in full]
    self.merger = PatchMerger(config)

  def __call__(self, inputs: VisionInputs) -> jax.Array:
    """Encodes all pictures of a batch.

    Args:
      inputs: of `plan`.

    Returns:
      [R * W, O] features, one row per slot; those of padding slots have no meaning.
    """
    return self.merger(self.run(inputs)[0])

  def run(
    self, inputs: VisionInputs, saliency: bool = False, stage: TowerStage | None = None
  ) -> tuple[jax.Array, jax.Array | None, jax.Array | None]:
    """The blocks, without the merger.

    Args:
      inputs: of `plan`.
      saliency: whether to measure the attention that merged tokens receive in the last block with full attention.
      stage: after which only some of the merged tokens go on; None: all do.

    Returns:
      [S, W * U, D] hidden states; the saliency of each slot, [R * W] float32, or None; and [R * W] int32, for each slot its
      place among the S * W whose states these are, -1 if it was removed; None: they are all slots.
    """
    x = self.patch_embed(rearrange(inputs.patches, "R W U C -> R (W U) C"))
    x = sharding.residual(x, self.mesh)
    frequencies = rope.grid_frequencies(self.config.hidden_size // self.config.num_heads)
    rotation = rope.rotation(rearrange(inputs.positions, "R W U A -> R (W U) A"), frequencies)
    last_full = max((number for number, block in enumerate(self.blocks) if block.full), default=None)
    if saliency and last_full is None:
      raise ValueError("selector: it needs a vision block with full attention, and the model has none")
    received, stop = None, self.config.depth if stage is None else stage.plan.layer
    for number, block in enumerate(self.blocks[:stop]):
      if saliency and number == last_full:
        received = block.attn.received(block.norm1(x), rotation, inputs.layout)
      before, x = x, block(x, rotation, inputs.layout)
    if stage is None:
      return x, received, None
    staged = subset.Staged(stage, inputs.layout, before, x, self.merger, self.mesh)
    x, rotation = staged.take(x), tuple(map(staged.take, rotation))
    for block in self.blocks[stop:]:
      x = block(x, rotation, staged.layout)
    return staged.finish(x), received, staged.rows
