"""Arrays of a Hugging Face processor for Qwen2.5-VL to fixed shapes, on the host."""

from __future__ import annotations

import math

import numpy as np

from hawk_jax import checks
from models.inputs import packing
from models.inputs import synthetic
from models.qwen2_5_vl import vision
from models.qwen2_5_vl.config import Qwen2_5_VLConfig
from models.vision_language import Inputs


def pack(
  config: Qwen2_5_VLConfig,
  input_ids,
  attention_mask=None,
  pixel_values=None,
  image_grid_thw=None,
  pixel_values_videos=None,
  video_grid_thw=None,
  second_per_grid_ts=None,
  shards: int = 1,
) -> Inputs:
  """Plans a batch; see `Qwen2_5_VL.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  images, pixels = _check_pictures("image_grid_thw", image_grid_thw, "pixel_values", pixel_values, config)
  videos, frames = _check_pictures("video_grid_thw", video_grid_thw, "pixel_values_videos", pixel_values_videos, config)
  intervals = [0.0] * len(images) + _check_seconds(second_per_grid_ts, len(videos), config)

  planned, slots = None, np.zeros(0, np.int32)
  grids = np.concatenate([images, videos])
  if len(grids):
    planned, slots = vision.plan(np.concatenate([pixels, frames]), grids, config.vision, shards)
  slots = np.split(slots, np.cumsum(grids.prod(axis=1) // config.vision.merge_unit))
  merge = config.vision.spatial_merge_size
  longest = config.text.max_position_embeddings
  positions = [_positions(grid, min(interval, longest), merge, longest) for grid, interval in zip(grids, intervals)]
  views = [[[(height // merge, width // merge, False)]] * frames for frames, height, width in grids.tolist()]
  first = len(images)
  pictures = {
    config.image_token_id: packing.Pictures(
      "image", "image_grid_thw", "grid", images.tolist(), slots[:first], positions[:first], views[:first]
    ),
    config.video_token_id: packing.Pictures(
      "video", "video_grid_thw", "grid", videos.tolist(), slots[first:-1], positions[first:], views[first:]
    ),
  }
  prompt, views = packing.plan_prompts(config.text, tokens, mask, pictures, config.vision_end_token_id, config.eos_token_ids)
  return Inputs(prompt, planned, views)


def synthetic_batch(config: Qwen2_5_VLConfig, sizes, text_tokens: int, rng) -> dict[str, np.ndarray]:
  """See `VisionLanguageModel.synthetic_batch`; sizes are rounded down to whole merged tokens."""
  merge = config.vision.spatial_merge_size
  unit = config.vision.patch_size * merge
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


def _positions(grid, interval, merge, longest) -> np.ndarray:
  """[merged tokens, 3] int32 time, row and column; frame group t is at time floor(t * interval), but at most `longest`.

  A prompt that reaches `longest` is refused later.
  """
  frames, height, width = grid.tolist()
  times = np.minimum(np.arange(frames, dtype=np.float32) * np.float32(interval), longest).astype(np.int32)
  axes = np.meshgrid(times, np.arange(height // merge), np.arange(width // merge), indexing="ij")
  return np.stack(axes, axis=-1).reshape(-1, 3).astype(np.int32)


def _check_pictures(grid_name, grids, pixel_name, pixels, config) -> tuple[np.ndarray, np.ndarray]:
  """[pictures, 3] int64 grids, and [patches, C] float32 pixels that fit them."""
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
  # Python's whole numbers, which do not overflow.
  expected = (sum(map(math.prod, grids.tolist())), config.vision.patch_dim)
  if pixels.shape != expected:
    raise ValueError(f"{pixel_name}: got shape {pixels.shape}, the grids and the model's patches require {expected}")
  return grids.astype(np.int64), pixels


def _check_seconds(seconds, videos: int, config) -> list[float]:
  """Rotary positions from one temporal patch to the next, for each video."""
  if seconds is None:
    seconds = np.ones(videos)
  seconds = checks.real_array("second_per_grid_ts", seconds, "numbers [videos]").astype(np.float64).reshape(-1)
  if len(seconds) != videos:
    raise ValueError(f"second_per_grid_ts: got {len(seconds)} values for {videos} videos")
  if not (np.isfinite(seconds) & (seconds >= 0)).all():
    raise ValueError(f"second_per_grid_ts: got {seconds.tolist()}, must be finite and not negative")
  return (seconds * config.vision.tokens_per_second).tolist()
