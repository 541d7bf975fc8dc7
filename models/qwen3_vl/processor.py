"""Pictures and videos of a Qwen3-VL prompt to patches, as transformers' processors make them.

transformers processes videos only with torchvision, so that its rules for them are written out here.
"""

from __future__ import annotations

import math

import numpy as np

from hawk_jax import checks
from models.checkpoints import directory as directory_lib
from models.inputs import media
from models.inputs import video as video_lib
from models.qwen_vl.processor import PatchProcessor

_MINIMUM_FRAMES = 4
_LONGEST = 200
# Pixels of all frames together, where the checkpoint does not say; from transformers' Qwen3VLVideoProcessor.
_VIDEO_SIZE = {"shortest_edge": 128 * 32 * 32, "longest_edge": 768 * 32 * 32}


class Processor(PatchProcessor):
  """Frames share a video's pixels, and each group of frames is a picture after the text of its time."""

  def __init__(self, directory, config, tokenizer):
    super().__init__(directory, config, tokenizer)
    name, video = _video_settings(directory)
    self.video_size = {**_VIDEO_SIZE, **(video.get("size") or {})}
    for limit in _VIDEO_SIZE:
      checks.whole(f"{name}: size.{limit}", self.video_size[limit], 1)
    self.video_mean = video.get("image_mean") or self.video_mean
    self.video_std = video.get("image_std") or self.video_std
    media.check_moments(name, self.video_mean, self.video_std)
    around = {"vision_start_token_id": 151652, "vision_end_token_id": 151653, **config}
    self.start_token, self.end_token = (
      media.token(around, tokenizer, name) for name in ("vision_start_token_id", "vision_end_token_id")
    )

  def sample(self, total, rate, fps, max_frames):
    video_lib.check_sampling(total, fps, max_frames)
    count = min(max(int(total / rate * fps), _MINIMUM_FRAMES), max_frames, total)
    return np.linspace(0, total - 1, count).round().astype(np.int64)

  def frame_size(self, shape, min_pixels, max_pixels):
    """The checkpoint limits the pixels of all frames together; limits given for a frame count for each of them."""
    self.limits(min_pixels, max_pixels)
    count = shape[0]
    low = self.video_size["shortest_edge"] if min_pixels is None else count * min_pixels
    high = self.video_size["longest_edge"] if max_pixels is None else count * max_pixels
    return resized(shape, self.unit, self.processor.temporal_patch_size, low, high)

  def video_text(self, video, grid):
    """For each group of frames: its mean time in seconds, and visual tokens between tokens for start and end."""
    if len(video.times) != len(video.frames):
      raise ValueError(
        f"videos: got {len(video.times)} times for {len(video.frames)} frames; the prompt says the time of every frame"
      )
    deep = self.processor.temporal_patch_size
    times = [*video.times, *video.times[-1:] * (-len(video.times) % deep)]
    tokens = self.start_token + self.video_token * self.tokens(grid[1:]) + self.end_token
    return "".join(f"<{(times[at] + times[at + deep - 1]) / 2:.1f} seconds>{tokens}" for at in range(0, len(times), deep))


def resized(shape: tuple[int, int, int], unit: int, deep: int, low: int, high: int) -> tuple[int, int]:
  """Height and width of a video's frames such that all of them together have a number of pixels within limits.

  Args:
    shape: number of frames, height and width.
    unit: height and width become multiples of it.
    deep: frames per temporal patch; pixels are first counted for a multiple of it.
    low: smaller videos are scaled up to this many pixels.
    high: larger videos are scaled down to this many pixels.

  Raises:
    ValueError: fewer frames than a temporal patch has, or frames over 200 times as long as wide.
  """
  count, height, width = shape
  if count < deep:
    raise ValueError(f"videos: got a video of {count} frames, must have at least {deep}")
  if min(height, width) < unit:
    scale = max(unit / height, unit / width)
    height, width = int(height * scale), int(width * scale)
  if max(height, width) > _LONGEST * min(height, width):
    raise ValueError(f"videos: got frames of {width} x {height} pixels, must be at most {_LONGEST} times as long as wide")
  sides = [round(side / unit) * unit for side in (height, width)]
  pixels, counted = count * height * width, round(count / deep) * deep * math.prod(sides)
  if counted > high:
    return tuple(max(unit, math.floor(side / math.sqrt(pixels / high) / unit) * unit) for side in (height, width))
  if counted < low:
    return tuple(math.ceil(side * math.sqrt(low / pixels) / unit) * unit for side in (height, width))
  return tuple(sides)


def _video_settings(directory) -> tuple[str, dict]:
  """What a checkpoint says about videos, and the name of its file: one of their own, or that of the whole processor."""
  for name, key in (("video_preprocessor_config.json", None), ("processor_config.json", "video_processor")):
    path = directory / name
    if path.is_file():
      content = directory_lib.read_json(path)
      content = (content.get(key) or {}) if key else content
      for part in (content, content.get("size") or {}) if isinstance(content, dict) else [content]:
        if not isinstance(part, dict):
          raise ValueError(f"{name}: got {checks.show(part)}, must be an object")
      return name, content
  return "preprocessor_config.json", {}
