"""Pictures and videos on their way into a prompt: arrays for `pack`, and the text that represents each of them."""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np
from PIL import Image
from PIL import ImageOps

from models.inputs import video as video_lib
from models.inputs.video import Video

# The pictures and videos of each prompt of a batch, in the order of their placeholders.
Rows = Sequence[Sequence[Image.Image | Video]]


@dataclasses.dataclass(frozen=True)
class Media:
  """The pictures and videos of a batch.

  Attributes:
    arrays: arguments of the port's `pack`.
    image_texts: for each picture of the batch, in order, the text that replaces its placeholder in the prompt.
    video_texts: for each video likewise.
  """

  arrays: dict[str, np.ndarray]
  image_texts: Sequence[str] = ()
  video_texts: Sequence[str] = ()


class MediaProcessor:
  """A checkpoint's processing of pictures and videos; each port subclasses it.

  Attributes:
    image_token: the chat template writes it in place of each picture.
    video_token: the chat template writes it in place of each video; None for models without videos.
  """

  def __init__(self, config: dict[str, Any], tokenizer):
    """Finds the placeholders.

    Args:
      config: content of config.json.
      tokenizer: transformers' tokenizer.
    """
    token = lambda *names: next((tokenizer.convert_ids_to_tokens(config[name]) for name in names if name in config), None)
    self.image_token = token("image_token_id", "image_token_index")
    self.video_token = token("video_token_id", "video_token_index")

  def sample(self, total: int, rate: float, fps: float, max_frames: int) -> np.ndarray:
    """Which frames of a video the model gets; see `models.inputs.video.sample`, the rule of most models."""
    return video_lib.sample(total, rate, fps, max_frames)

  def __call__(self, rows: Rows, min_pixels: int | None = None, max_pixels: int | None = None) -> Media:
    """Arrays and texts of a batch.

    Args:
      rows: for each prompt its RGB pictures and its videos, in the order of their placeholders.
      min_pixels: smaller pictures and frames are scaled up to this many pixels; None: as the checkpoint says.
      max_pixels: larger ones are scaled down to this many pixels; None: as the checkpoint says.

    Raises:
      ValueError: pictures, videos or limits that the model does not take.
    """
    raise NotImplementedError

  def as_seen(self, images: Sequence[Image.Image]) -> list[Image.Image]:
    """A prompt's pictures cropped or padded as for the tower, so that its tokens can be drawn on them; most are not."""
    return list(images)


def padded(picture: Image.Image) -> Image.Image:
  """A picture in the middle of a gray square."""
  return ImageOps.pad(picture, (max(picture.size),) * 2, color=(127, 127, 127))


def cropped(picture: Image.Image) -> Image.Image:
  """The square in the middle of a picture."""
  return ImageOps.fit(picture, (min(picture.size),) * 2)


def pictures(rows: Rows) -> list[Image.Image]:
  """All pictures of a batch, in order."""
  return [item for row in rows for item in row if isinstance(item, Image.Image)]


def videos(rows: Rows) -> list[Video]:
  """All videos of a batch, in order."""
  return [item for row in rows for item in row if isinstance(item, Video)]


def check_no_limits(min_pixels: int | None, max_pixels: int | None) -> None:
  """Refuses limits of pixels, for models whose tiles have one size.

  Raises:
    ValueError: one of them is given.
  """
  if min_pixels is not None or max_pixels is not None:
    raise ValueError(
      f"min_pixels and max_pixels: got {min_pixels} and {max_pixels}, but this model scales every "
      "picture to tiles of one size; leave them out"
    )
