"""Arrays of a Hugging Face processor for Qwen2.5-VL to fixed shapes, on the host."""

from __future__ import annotations

import numpy as np

from hawk_jax import checks
from models.inputs import packing
from models.qwen2_5_vl import vision
from models.qwen2_5_vl.config import Qwen2_5_VLConfig
from models.qwen_vl import grids as grids_lib
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
  images, pixels = grids_lib.check("image_grid_thw", image_grid_thw, "pixel_values", pixel_values, config)
  videos, frames = grids_lib.check("video_grid_thw", video_grid_thw, "pixel_values_videos", pixel_values_videos, config)
  intervals = [0.0] * len(images) + _check_seconds(second_per_grid_ts, len(videos), config)

  planned, slots = None, np.zeros(0, np.int32)
  grids = np.concatenate([images, videos])
  if len(grids):
    planned, slots = vision.plan(np.concatenate([pixels, frames]), grids, config.vision, shards)
  slots = np.split(slots, np.cumsum(grids.prod(axis=1) // config.vision.merge_unit))
  merge = config.vision.spatial_merge_size
  positions = [grids_lib.positions(grid, interval, merge) for grid, interval in zip(grids, intervals)]
  views = [[[(height // merge, width // merge, False)]] * frames for frames, height, width in grids.tolist()]
  first = len(images)
  pictures = {
    config.image_token_id: packing.Pictures(
      "image", "image_grid_thw", "grid", images.tolist(), slots[:first], positions[:first], views[:first]
    ),
    config.video_token_id: packing.Pictures(
      "video",
      "video_grid_thw",
      "grid",
      videos.tolist(),
      slots[first:-1],
      positions[first:],
      views[first:],
      grids_lib.video_places(videos, config),
    ),
  }
  prompt, views = packing.plan_prompts(config.text, tokens, mask, pictures, config.vision_end_token_id, config.eos_token_ids)
  return Inputs(prompt, planned, views)


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
