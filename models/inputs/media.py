"""Pictures and videos on their way into a prompt: arrays for `pack`, and the text that represents each of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import contextlib
import dataclasses
from typing import Any

from huggingface_hub import errors as hub_errors
import numpy as np
from PIL import Image
from PIL import ImageOps

from hawk_jax import checks
from models import foreign
from models.inputs import video as video_lib
from models.inputs.video import Video

# Those that image processors are made from.
FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
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
    self.image_token = token(config, tokenizer, "image_token_id", "image_token_index")
    self.video_token = token(config, tokenizer, "video_token_id", "video_token_index")

  def check_shape(self, name: str, width: int, height: int) -> None:
    """Refuses pictures and frames that the port cannot scale, before it tries.

    Args:
      name: of the picture or video, for messages.
      width: in pixels.
      height: in pixels.

    Raises:
      ValueError: names the picture or video.
    """

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


@contextlib.contextmanager
def reading():
  """A context in which transformers reads a checkpoint's image processor; raises ValueError for what is broken."""
  try:
    yield
  except (hub_errors.StrictDataclassError, *foreign.ERRORS) as error:
    raise ValueError(f"{FILES[0]}: {foreign.reason(error)}") from error


def check_normalization(processor) -> None:
  """Refuses an image processor of transformers that cannot normalize pixels.

  Raises:
    ValueError: names the key of preprocessor_config.json.
  """
  check_moments(FILES[0], processor.image_mean, processor.image_std)
  checks.real(f"{FILES[0]}: rescale_factor", processor.rescale_factor, "a positive number of at most 1", 1e-6, 1.0)


def check_moments(file: str, mean, deviation) -> None:
  """Refuses means and deviations of pixels that are not three numbers each.

  Args:
    file: that they are from.
    mean: its image_mean.
    deviation: its image_std.

  Raises:
    ValueError: names the file and the key.
  """
  for name, value in (("image_mean", mean), ("image_std", deviation)):
    values = checks.real_array(f"{file}: {name}", value, "three numbers")
    if values.shape != (3,) or not np.isfinite(values).all() or (name == "image_std" and values.min() <= 0):
      raise ValueError(
        f"{file}: {name}: got {checks.show(values.tolist())}, must be three finite numbers, deviations positive"
      )


def check_setting(processor, name: str, expected: int | None) -> None:
  """Refuses an image processor of transformers whose patches do not fit the model.

  Args:
    processor: of transformers.
    name: of the setting.
    expected: its value in config.json; None: config.json does not have it.

  Raises:
    ValueError: names the key of preprocessor_config.json.
  """
  value = checks.whole(f"{FILES[0]}: {name}", getattr(processor, name), 1)
  if expected is not None and value != expected:
    raise ValueError(f"{FILES[0]}: {name} is {value}, must be {expected}, as in config.json")


def check_tile(processor, side: int) -> None:
  """Refuses an image processor of transformers whose tiles are not the tower's.

  Args:
    processor: of transformers.
    side: of the tower's tiles, in pixels.

  Raises:
    ValueError: names the key of preprocessor_config.json.
  """
  size = dict(processor.size or {})
  height, width = (checks.whole(f"{FILES[0]}: size.{name}", size.get(name), 1) for name in ("height", "width"))
  if (height, width) != (side, side):
    raise ValueError(f"{FILES[0]}: size makes tiles of {height} x {width} pixels, the tower takes {side}")


def token(config: Mapping[str, Any], tokenizer, *names: str) -> str | None:
  """The special token whose id a config holds under one of several names; None: under none of them.

  Raises:
    ValueError: names the key whose id is no token's.
  """
  for name in names:
    if name in config:
      found = tokenizer.convert_ids_to_tokens(checks.whole(f"config: {name}", config[name], 0, checks.INT32_MAX))
      if found is None:
        raise ValueError(f"config: {name} is {config[name]}, the tokenizer has no such token")
      return found
  return None


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
      f"min_pixels and max_pixels: got {checks.show(min_pixels)} and {checks.show(max_pixels)}, but this model scales "
      "every picture to tiles of one size; leave them out"
    )
