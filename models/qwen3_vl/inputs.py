"""Arrays of a Hugging Face processor for Qwen3-VL to fixed shapes, on the host."""

from __future__ import annotations

import numpy as np

from models.inputs import packing
from models.qwen3_vl import vision
from models.qwen3_vl.config import Qwen3VLConfig
from models.qwen_vl import grids as grids_lib
from models.vision_language import Inputs


def pack(
  config: Qwen3VLConfig,
  input_ids,
  attention_mask=None,
  pixel_values=None,
  image_grid_thw=None,
  pixel_values_videos=None,
  video_grid_thw=None,
  shards: int = 1,
) -> Inputs:
  """Plans a batch; see `Qwen3VL.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  images, pixels = grids_lib.check("image_grid_thw", image_grid_thw, "pixel_values", pixel_values, config)
  videos, frames = grids_lib.check("video_grid_thw", video_grid_thw, "pixel_values_videos", pixel_values_videos, config)
  # Text says the time of each slice of a video, so that a slice is a picture of its own.
  slices = np.repeat(videos * [0, 1, 1] + [1, 0, 0], videos[:, 0], axis=0)
  grids = np.concatenate([images, slices])
  planned = None
  if len(grids):
    planned = vision.plan(np.concatenate([pixels, frames]), grids, config.vision, shards)
  counts = grids.prod(axis=1) // config.vision.merge_unit
  slots = np.split(np.arange(counts.sum(), dtype=np.int32), np.cumsum(counts))[:-1]
  merge = config.vision.spatial_merge_size
  positions = [grids_lib.positions(grid, 0, merge) for grid in grids]
  views = [[[(height // merge, width // merge, False)]] * frames for frames, height, width in grids.tolist()]
  places = [part for ids, grid in zip(grids_lib.video_places(videos, config), videos) for part in np.split(ids, grid[0])]
  first = len(images)
  pictures = {
    config.image_token_id: packing.Pictures(
      "image", "image_grid_thw", "grid", images.tolist(), slots[:first], positions[:first], views[:first]
    ),
    config.video_token_id: packing.Pictures(
      "frame group", "video_grid_thw", "grid", slices.tolist(), slots[first:], positions[first:], views[first:], places
    ),
  }
  prompt, views = packing.plan_prompts(config.text, tokens, mask, pictures, config.vision_end_token_id, config.eos_token_ids)
  return Inputs(prompt, planned, views)
