"""Hugging Face arrays of a Qwen2.5-VL batch to fixed shapes, on the host."""

from __future__ import annotations

import numpy as np

from models import packing
from models.qwen2_5_vl import vision
from models.qwen2_5_vl.config import Qwen2_5_VLConfig
from models.vision_language import Inputs


def pack(config: Qwen2_5_VLConfig, input_ids, attention_mask=None, pixel_values=None, image_grid_thw=None,
         pixel_values_videos=None, video_grid_thw=None, second_per_grid_ts=None) -> Inputs:
  """Plans a batch; see `Qwen2_5_VL.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  images = _check_grids("image_grid_thw", image_grid_thw, "pixel_values", pixel_values, config)
  videos = _check_grids("video_grid_thw", video_grid_thw, "pixel_values_videos", pixel_values_videos, config)
  seconds = np.ones(len(videos)) if second_per_grid_ts is None else np.asarray(second_per_grid_ts, np.float64).reshape(-1)
  if len(seconds) != len(videos):
    raise ValueError(f"second_per_grid_ts: got {len(seconds)} values for {len(videos)} videos")
  if not (np.isfinite(seconds) & (seconds >= 0)).all():
    raise ValueError(f"second_per_grid_ts: got {seconds.tolist()}, must be finite and not negative")

  rows, next_positions = [], []
  used = {"image": 0, "video": 0}
  visual_start = {"image": 0, "video": int(_token_counts(images, config).sum())}
  for number in range(len(tokens)):
    row = tokens[number][mask[number]]
    plan, following = _plan_row(row, number, config, images, videos, seconds, used, visual_start)
    rows.append(plan)
    next_positions.append(following)
  for kind, grids in (("image", images), ("video", videos)):
    if used[kind] != len(grids):
      raise ValueError(f"{kind}_grid_thw: {len(grids)} grids, but input_ids hold the placeholders of {used[kind]}")

  planned = None
  if len(images) + len(videos):
    pixels = [np.asarray(x, np.float32) for x in (pixel_values, pixel_values_videos) if x is not None]
    planned, slots = vision.plan(np.concatenate(pixels), np.concatenate([images, videos]), config.vision)
    for row in rows:
      row["slots"] = np.where(row["visual"], slots[np.maximum(row["slots"], 0)], 0)
  prompt = packing.pack_prompt(rows, next_positions, config.text.max_position_embeddings)
  return Inputs(prompt=prompt, vision=planned)


def _plan_row(tokens, number, config, images, videos, seconds, used, visual_start):
  """One prompt's positions and slots (METHOD section 8: text goes on from the largest position before it, plus one).

  `used` and `visual_start` count the batch's pictures and their merged tokens, and move on.
  """
  visual = (tokens == config.image_token_id) | (tokens == config.video_token_id)
  positions = np.zeros([len(tokens), 3], np.int32)
  slots = np.full(len(tokens), -1, np.int32)
  at, position = 0, 0
  while at < len(tokens):
    if not visual[at]:
      run = int(np.argmax(visual[at:])) if visual[at:].any() else len(tokens) - at
      positions[at:at + run] = np.arange(position, position + run)[:, None]
      at, position = at + run, position + run
      continue
    kind, grids = ("image", images) if tokens[at] == config.image_token_id else ("video", videos)
    if used[kind] == len(grids):
      raise ValueError(f"{kind}_grid_thw: prompt {number} has a placeholder for {kind} {used[kind]}, but there are "
                       f"{len(grids)} grids")
    frames, height, width = _merged(grids[used[kind]], config)
    count = frames * height * width
    run = tokens[at:at + count]
    if len(run) < count or (run != tokens[at]).any():
      found = int(np.argmax(run != tokens[at])) if (run != tokens[at]).any() else len(run)
      raise ValueError(f"{kind}_grid_thw: {kind} {used[kind]} has grid {grids[used[kind]].tolist()}, so {count} "
                       f"placeholders, but prompt {number} has {found}")
    interval = np.float32(seconds[used[kind]] * config.vision.tokens_per_second if kind == "video" else 0)
    times = (np.arange(frames, dtype=np.float32) * interval).astype(np.int32)
    axes = np.meshgrid(times, np.arange(height), np.arange(width), indexing="ij")
    positions[at:at + count] = np.stack(axes, axis=-1).reshape(-1, 3) + position
    slots[at:at + count] = np.arange(visual_start[kind], visual_start[kind] + count)
    visual_start[kind] += count
    used[kind] += 1
    position = int(positions[at:at + count].max()) + 1
    at += count
  query = packing.query_mask(tokens, visual, config.vision_end_token_id, config.eos_token_ids)
  return dict(tokens=tokens, visual=visual, slots=slots, positions=positions, query=query), position


def _merged(grid, config):
  merge = config.vision.spatial_merge_size
  return int(grid[0]), int(grid[1]) // merge, int(grid[2]) // merge


def _token_counts(grids, config) -> np.ndarray:
  return grids.prod(axis=1) // config.vision.merge_unit


def _check_grids(grid_name, grids, pixel_name, pixels, config) -> np.ndarray:
  """[pictures, 3] int64 grids that fit their pixels."""
  if (grids is None) != (pixels is None):
    raise ValueError(f"{grid_name} and {pixel_name}: give both or neither, got only "
                     f"{pixel_name if grids is None else grid_name}")
  if grids is None:
    return np.zeros([0, 3], np.int64)
  grids, shape = np.asarray(grids), np.shape(pixels)
  if grids.ndim != 2 or grids.shape[1] != 3 or not np.issubdtype(grids.dtype, np.integer) or not len(grids):
    raise ValueError(f"{grid_name}: got {grids.dtype} of shape {grids.shape}, must be integers [pictures, 3]")
  merge = config.vision.spatial_merge_size
  for number, grid in enumerate(grids.tolist()):
    if min(grid) < 1 or grid[1] % merge or grid[2] % merge:
      raise ValueError(f"{grid_name}: picture {number} has grid {grid}; height and width must be positive multiples of "
                       f"the merge size {merge}")
  expected = (int(grids.prod(axis=1).sum()), config.vision.patch_dim)
  if shape != expected:
    raise ValueError(f"{pixel_name}: got shape {shape}, the grids and the model's patches ask for {expected}")
  return grids.astype(np.int64)
