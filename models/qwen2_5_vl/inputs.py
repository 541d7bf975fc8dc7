"""Arrays of a Hugging Face processor for Qwen2.5-VL to fixed shapes, on the host."""

from __future__ import annotations

import numpy as np

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
  images = _check_grids("image_grid_thw", image_grid_thw, "pixel_values", pixel_values, config)
  videos = _check_grids("video_grid_thw", video_grid_thw, "pixel_values_videos", pixel_values_videos, config)
  seconds = np.ones(len(videos)) if second_per_grid_ts is None else np.asarray(second_per_grid_ts, np.float64).reshape(-1)
  if len(seconds) != len(videos):
    raise ValueError(f"second_per_grid_ts: got {len(seconds)} values for {len(videos)} videos")
  if not (np.isfinite(seconds) & (seconds >= 0)).all():
    raise ValueError(f"second_per_grid_ts: got {seconds.tolist()}, must be finite and not negative")

  planned, slots = None, np.zeros(0, np.int32)
  grids = np.concatenate([images, videos])
  if len(grids):
    pixels = [np.asarray(x, np.float32) for x in (pixel_values, pixel_values_videos) if x is not None]
    planned, slots = vision.plan(np.concatenate(pixels), grids, config.vision, shards)
  slots = np.split(slots, np.cumsum(grids.prod(axis=1) // config.vision.merge_unit))
  intervals = np.concatenate([np.zeros(len(images)), seconds * config.vision.tokens_per_second])
  merge = config.vision.spatial_merge_size
  positions = [_positions(grid, interval, merge) for grid, interval in zip(grids, intervals)]
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


def _positions(grid, interval, merge) -> np.ndarray:
  """[merged tokens, 3] int32 time, row and column; frame group t is at time floor(t * interval)."""
  frames, height, width = grid.tolist()
  times = (np.arange(frames, dtype=np.float32) * np.float32(interval)).astype(np.int32)
  axes = np.meshgrid(times, np.arange(height // merge), np.arange(width // merge), indexing="ij")
  return np.stack(axes, axis=-1).reshape(-1, 3).astype(np.int32)


def _check_grids(grid_name, grids, pixel_name, pixels, config) -> np.ndarray:
  """[pictures, 3] int64 grids that fit their pixels."""
  packing.check_together(grid_name, grids, pixel_name, pixels)
  if grids is None:
    return np.zeros([0, 3], np.int64)
  grids, shape = np.asarray(grids), np.shape(pixels)
  if grids.ndim != 2 or grids.shape[1] != 3 or not np.issubdtype(grids.dtype, np.integer) or not len(grids):
    raise ValueError(f"{grid_name}: got {grids.dtype} of shape {grids.shape}, must be integers [pictures, 3]")
  merge = config.vision.spatial_merge_size
  for number, grid in enumerate(grids.tolist()):
    if min(grid) < 1 or grid[1] % merge or grid[2] % merge:
      raise ValueError(
        f"{grid_name}: picture {number} has grid {grid}; height and width must be positive multiples of "
        f"the merge size {merge}"
      )
  expected = (int(grids.prod(axis=1).sum()), config.vision.patch_dim)
  if shape != expected:
    raise ValueError(f"{pixel_name}: got shape {shape}, the grids and the model's patches require {expected}")
  return grids.astype(np.int64)
