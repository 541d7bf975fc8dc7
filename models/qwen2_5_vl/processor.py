"""Pictures and videos of a Qwen2.5-VL prompt to patches, as transformers' processors make them."""

from __future__ import annotations

from collections.abc import Sequence
import warnings

from einops import rearrange
import numpy as np
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from hawk_jax import checks
from models.inputs import media
from models.inputs import pictures
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.inputs.video import Video

# Settings of the image processor, and what config.json calls them.
_SETTINGS = {"patch_size": "patch_size", "merge_size": "spatial_merge_size", "temporal_patch_size": "temporal_patch_size"}


class Processor(MediaProcessor):
  """Patches of pictures and videos."""

  def __init__(self, directory, config, tokenizer):
    super().__init__(config, tokenizer)
    with warnings.catch_warnings(), media.reading():
      warnings.simplefilter("ignore", FutureWarning)  # checkpoints say min_pixels and max_pixels
      self.processor = Qwen2VLImageProcessorPil.from_pretrained(directory)
    media.check_normalization(self.processor)
    vision = config.get("vision_config") or {}
    for name, key in _SETTINGS.items():
      media.check_setting(self.processor, name, vision.get(key))
    self._limits(None, None)

  def check_shape(self, name, width, height):
    pictures.check_aspect(name, width, height)

  def __call__(self, images, videos, min_pixels=None, max_pixels=None) -> Media:
    """Adds `pixel_values` and `image_grid_thw` for pictures; for videos see `videos`.

    Raises:
      ValueError: limits below one visual token or in the wrong order.
    """
    low, high = self._limits(min_pixels, max_pixels)
    flat, clips = sum(map(list, images), []), sum(map(list, videos), [])
    arrays = {}
    if flat:
      arrays |= self.processor(images=flat, size={"shortest_edge": low, "longest_edge": high}, return_tensors="np")
    if clips:
      arrays |= self.videos(clips, low, high)
    merge = self.processor.merge_size
    texts = lambda token, grids: [token * int(np.prod(grid) // merge**2) for grid in arrays.get(grids, ())]
    return Media(
      {name: np.asarray(value) for name, value in arrays.items()},
      texts(self.image_token, "image_grid_thw"),
      texts(self.video_token, "video_grid_thw"),
    )

  def videos(self, videos: Sequence[Video], low: int, high: int) -> dict[str, np.ndarray]:
    """Patches of videos, each of two consecutive frames; the last frame of an odd number is repeated.

    Args:
      videos: sampled frames.
      low: smaller frames are scaled up to this many pixels.
      high: larger frames are scaled down to this many pixels.

    Returns:
      `pixel_values_videos` [patches, C], `video_grid_thw` [videos, 3] and `second_per_grid_ts` [videos].
    """
    patches, grids = zip(*(self._video_patches(video.frames, low, high) for video in videos))
    return {
      "pixel_values_videos": np.concatenate(patches),
      "video_grid_thw": np.asarray(grids),
      "second_per_grid_ts": np.asarray([self.processor.temporal_patch_size * video.interval for video in videos]),
    }

  def _video_patches(self, frames, low, high):
    """[patches, C] and the grid of one video's [T, H, W, 3] uint8 frames."""
    size, merge, deep = self.processor.patch_size, self.processor.merge_size, self.processor.temporal_patch_size
    height, width = smart_resize(*frames.shape[1:3], factor=size * merge, min_pixels=low, max_pixels=high)
    resized = [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames]
    resized += resized[-1:] * (-len(resized) % deep)
    mean, deviation = (255 * np.asarray(x, np.float32) for x in (self.processor.image_mean, self.processor.image_std))
    pixels = (np.stack(resized).astype(np.float32) - mean) / deviation
    patches = rearrange(pixels, "(t f) (h m p) (w n q) c -> (t h w m n) (c f p q)", f=deep, m=merge, n=merge, p=size, q=size)
    return patches, (len(resized) // deep, height // size, width // size)

  def _limits(self, min_pixels, max_pixels):
    """The smallest and largest number of pixels of a picture or frame."""
    size = dict(self.processor.size)
    low = size.get("shortest_edge") if min_pixels is None else min_pixels
    high = size.get("longest_edge") if max_pixels is None else max_pixels
    for name, value in (("min_pixels", low), ("max_pixels", high)):
      checks.whole(name, value, 1)
    token = (self.processor.patch_size * self.processor.merge_size) ** 2
    if max_pixels is not None and max_pixels < token:
      raise ValueError(f"max_pixels: got {max_pixels}, must be at least {token}, one visual token")
    if low > min(high, pictures.MAX_PIXELS):
      raise ValueError(
        f"min_pixels and max_pixels: got {low} and {high}, must be in this order, the first at most {pictures.MAX_PIXELS:,}"
      )
    return low, high
