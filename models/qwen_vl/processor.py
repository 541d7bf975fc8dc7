"""Pictures and videos of a Qwen-VL prompt to patches, as transformers' processors make them."""

from __future__ import annotations

from collections.abc import Sequence
import warnings

from einops import rearrange
import numpy as np
from PIL import Image
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

from hawk_jax import checks
from models.inputs import media
from models.inputs import pictures as pictures_lib
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.inputs.video import Video

# Settings of the image processor, and what config.json calls them.
_SETTINGS = {"patch_size": "patch_size", "merge_size": "spatial_merge_size", "temporal_patch_size": "temporal_patch_size"}


class PatchProcessor(MediaProcessor):
  """Patches of pictures and videos; a family says how large frames become, and how a video reads.

  Attributes:
    processor: transformers' image processor.
    video_mean: of the channels of a video, 0 to 1.
    video_std: likewise.
  """

  def __init__(self, directory, config, tokenizer):
    super().__init__(config, tokenizer)
    with warnings.catch_warnings(), media.reading():
      warnings.simplefilter("ignore", FutureWarning)  # checkpoints say min_pixels and max_pixels
      self.processor = Qwen2VLImageProcessorPil.from_pretrained(directory)
    media.check_normalization(self.processor)
    vision = config.get("vision_config") or {}
    for name, key in _SETTINGS.items():
      media.check_setting(self.processor, name, vision.get(key))
    self.limits(None, None)
    self.video_mean, self.video_std = self.processor.image_mean, self.processor.image_std

  def check_shape(self, name, width, height):
    pictures_lib.check_aspect(name, width, height)

  def __call__(self, rows, min_pixels=None, max_pixels=None) -> Media:
    """Adds `pixel_values` and `image_grid_thw` for pictures; for videos see `videos`.

    Raises:
      ValueError: limits below one visual token or in the wrong order.
    """
    low, high = self.limits(min_pixels, max_pixels)
    pictures, clips = media.pictures(rows), media.videos(rows)
    arrays = {}
    if pictures:
      arrays |= self.processor(images=pictures, size={"shortest_edge": low, "longest_edge": high}, return_tensors="np")
    if clips:
      arrays |= self.videos(clips, min_pixels, max_pixels)
    arrays = {name: np.asarray(value) for name, value in arrays.items()}
    return Media(
      arrays,
      [self.image_token * self.tokens(grid) for grid in arrays.get("image_grid_thw", ())],
      [self.video_text(clip, grid) for clip, grid in zip(clips, arrays.get("video_grid_thw", ()))],
    )

  def videos(self, clips: Sequence[Video], min_pixels: int | None, max_pixels: int | None) -> dict[str, np.ndarray]:
    """Patches of videos, each of two consecutive frames; the last frame of an odd number is repeated.

    Args:
      clips: sampled frames.
      min_pixels: smaller frames are scaled up to this many pixels; None: as the checkpoint says.
      max_pixels: larger frames are scaled down to this many pixels; None: as the checkpoint says.

    Returns:
      `pixel_values_videos` [patches, C] and `video_grid_thw` [videos, 3].
    """
    sizes = [self.frame_size(clip.frames.shape[:3], min_pixels, max_pixels) for clip in clips]
    patches, grids = zip(*(self._video_patches(clip.frames, *size) for clip, size in zip(clips, sizes)))
    return {"pixel_values_videos": np.concatenate(patches), "video_grid_thw": np.asarray(grids)}

  def frame_size(self, shape: tuple[int, int, int], min_pixels: int | None, max_pixels: int | None) -> tuple[int, int]:
    """Height and width in pixels to which the frames of a video are scaled.

    Args:
      shape: number of frames, height and width.
      min_pixels: as in `videos`.
      max_pixels: as in `videos`.
    """
    raise NotImplementedError

  def video_text(self, video: Video, grid: np.ndarray) -> str:
    """What replaces a video's placeholder in the prompt; `grid` [3] is its row of `video_grid_thw`."""
    raise NotImplementedError

  def tokens(self, grid: np.ndarray) -> int:
    """Visual tokens of a grid."""
    return int(np.prod(grid)) // self.processor.merge_size**2

  def limits(self, min_pixels: int | None, max_pixels: int | None) -> tuple[int, int]:
    """The smallest and largest number of pixels of a picture.

    Raises:
      ValueError: as `__call__`.
    """
    size = dict(self.processor.size)
    low = size.get("shortest_edge") if min_pixels is None else min_pixels
    high = size.get("longest_edge") if max_pixels is None else max_pixels
    for name, value in (("min_pixels", low), ("max_pixels", high)):
      checks.whole(name, value, 1)
    token = self.unit**2
    if max_pixels is not None and max_pixels < token:
      raise ValueError(f"max_pixels: got {checks.show(max_pixels)}, must be at least {token}, one visual token")
    if low > min(high, pictures_lib.MAX_PIXELS):
      raise ValueError(
        f"min_pixels and max_pixels: got {checks.show(low)} and {checks.show(high)}, must be in this order, the first at "
        f"most {pictures_lib.MAX_PIXELS:,}"
      )
    return low, high

  @property
  def unit(self) -> int:
    """Pixels along the side of a visual token."""
    return self.processor.patch_size * self.processor.merge_size

  def _video_patches(self, frames, height, width):
    """[patches, C] and the grid of one video's [T, H, W, 3] uint8 frames, scaled to a size."""
    size, merge, deep = self.processor.patch_size, self.processor.merge_size, self.processor.temporal_patch_size
    resized = [np.asarray(Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC)) for frame in frames]
    resized += resized[-1:] * (-len(resized) % deep)
    mean, deviation = (255 * np.asarray(x, np.float32) for x in (self.video_mean, self.video_std))
    pixels = (np.stack(resized).astype(np.float32) - mean) / deviation
    patches = rearrange(pixels, "(t f) (h m p) (w n q) c -> (t h w m n) (c f p q)", f=deep, m=merge, n=merge, p=size, q=size)
    return patches, (len(resized) // deep, height // size, width // size)
