"""Pictures and videos on grids of patches, on the host: checks, positions, and batches for measurements.

A grid is (temporal slices, height, width), in patches; a square of `merge` x `merge` patches becomes one visual token.
"""

from __future__ import annotations

import math

from einops import rearrange
import numpy as np

from hawk_jax import checks
from models.inputs import packing
from models.inputs import synthetic
from models.qwen_vl.config import QwenVLConfig

# Synthetic pictures are at most this many times as long as wide.
_LONGEST = 4
_TYPICAL_TOKENS = 4096
# Largest time of a slice. No config allows prompts with such positions, so that they are refused later.
_LATEST = 2**30


def check(grid_name: str, grids, pixel_name: str, pixels, config: QwenVLConfig) -> tuple[np.ndarray, np.ndarray]:
  """[pictures, 3] int64 grids, and [patches, C] float32 pixels that fit them.

  Raises:
    ValueError: grids without pixels or the reverse, a wrong shape, sides that the merge size does not divide, or pixels that
      `packing.check_pixels` refuses.
  """
  packing.check_together(grid_name, grids, pixel_name, pixels)
  if grids is None:
    return np.zeros([0, 3], np.int64), np.zeros([0, config.vision.patch_dim], np.float32)
  grids = checks.whole_array(grid_name, grids, "integers [pictures, 3]")
  if grids.ndim != 2 or grids.shape[1] != 3 or not len(grids):
    raise ValueError(f"{grid_name}: got {grids.dtype} of shape {grids.shape}, must be integers [pictures, 3]")
  merge = config.vision.spatial_merge_size
  for number, grid in enumerate(grids.tolist()):
    if min(grid) < 1 or grid[1] % merge or grid[2] % merge:
      raise ValueError(
        f"{grid_name}: picture {number} has grid {grid}; height and width must be positive multiples of "
        f"the merge size {merge}"
      )
  pixels = packing.check_pixels(pixel_name, pixels)
  expected = (sum(map(math.prod, grids.tolist())), config.vision.patch_dim)  # Python's numbers, which do not overflow
  if pixels.shape != expected:
    raise ValueError(f"{pixel_name}: got shape {pixels.shape}, the grids and the model's patches require {expected}")
  return grids.astype(np.int64), pixels


def places(height: int, width: int, merge: int) -> np.ndarray:
  """[merged tokens, merge * merge, 2] row and column of each patch of a slice, merged token by merged token."""
  place = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
  return rearrange(place, "(h i) (w j) a -> (h w) (i j) a", i=merge, j=merge)


def positions(grid: np.ndarray, interval: float, merge: int) -> np.ndarray:
  """[merged tokens, 3] int32 time, row and column; slice t is at time floor(t * interval), at most _LATEST."""
  frames, height, width = grid.tolist()
  times = np.arange(frames, dtype=np.float32) * np.float32(min(interval, _LATEST))
  times = np.minimum(times, _LATEST).astype(np.int32)
  axes = np.meshgrid(times, np.arange(height // merge), np.arange(width // merge), indexing="ij")
  return np.stack(axes, axis=-1).reshape(-1, 3).astype(np.int32)


def video_places(videos: np.ndarray, config: QwenVLConfig) -> list[np.ndarray]:
  """For each video, [merged tokens] ids that only tokens at the same place in its temporal slices share.

  Args:
    videos: [videos, 3] grids.
    config: of the model.
  """
  sizes = videos[:, 1:].prod(axis=1) // config.vision.merge_unit
  starts = np.cumsum(sizes) - sizes
  return [np.tile(start + np.arange(size), frames) for start, size, frames in zip(starts, sizes, videos[:, 0])]


def synthetic_batch(config: QwenVLConfig, sizes, text_tokens: int, rng) -> dict[str, np.ndarray]:
  """See `VisionLanguageModel.synthetic_batch`; sizes are rounded down to whole merged tokens.

  Raises:
    ValueError: a picture smaller than one.
  """
  merge = config.vision.spatial_merge_size
  unit = config.vision.patch_size * merge
  if (least := min(map(min, sizes))) < unit:
    raise ValueError(f"sizes: got a side of {least} pixels, must be at least {unit}")
  grids = np.asarray([[1, merge * (height // unit), merge * (width // unit)] for height, width in sizes])
  counts = grids.prod(axis=1) // config.vision.merge_unit
  prompts = synthetic.prompts(
    config.text,
    config.image_token_id,
    counts.tolist(),
    text_tokens,
    rng,
    [config.vision_start_token_id],
    [config.vision_end_token_id],
    [config.video_token_id, *config.eos_token_ids],
  )
  pixels = synthetic.noise((int(grids.prod(axis=1).sum()), config.vision.patch_dim), rng)
  return {**prompts, "pixel_values": pixels, "image_grid_thw": grids}


def picture_size(config: QwenVLConfig, visual_tokens: int | None) -> tuple[int, int]:
  """See `VisionLanguageModel.picture_size`."""
  tokens = _TYPICAL_TOKENS if visual_tokens is None else checks.whole("visual_tokens", visual_tokens, 1)
  unit = config.vision.patch_size * config.vision.spatial_merge_size
  for rows in range(math.isqrt(tokens), 0, -1):
    if tokens % rows == 0 and tokens // rows <= _LONGEST * rows:
      return unit * rows, unit * (tokens // rows)
  raise ValueError(
    f"visual_tokens: got {tokens}, must be rows times columns of a picture at most {_LONGEST} times as long "
    f"as wide, such as {math.isqrt(tokens) ** 2}"
  )
