"""Pictures from files, bytes and arrays, without trust in any of them.

Only raster formats are read. Pillow knows more: for EPS it would start Ghostscript, for others a program of the system.
"""

from __future__ import annotations

import io
import os
from typing import Any

import numpy as np
from PIL import Image
from PIL import ImageOps

from models import foreign

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
# Pillow's names of the pictures that are read: a JPEG file with several pictures is an MPO.
_OPENED = (*FORMATS, "MPO")
MAX_PIXELS = 100_000_000
_CONTENT = "the content"
_LONGEST = 200  # times as long as wide


def open_picture(source: Any, name: str | None = None) -> Image.Image:
  """A picture as an RGB image.

  Args:
    source: PIL image, [H, W, 3] uint8 array, path, or a file's bytes.
    name: what to call the picture in messages; a path is added. None: `images`, or `the content` for bytes.

  Raises:
    ValueError: it is missing, no picture in one of `FORMATS`, truncated, empty, or has more than 100 million pixels.
  """
  name = _name(source, name)
  if isinstance(source, np.ndarray):
    if source.dtype != np.uint8 or source.ndim != 3 or source.shape[-1] != 3:
      raise ValueError(f"{name}: got a {source.dtype} array of shape {source.shape}, must be uint8 [H, W, 3]")
    _check_size(name, source.shape[1], source.shape[0])
    return Image.fromarray(source)
  name, picture = _open(source, name)
  _check_size(name, *picture.size)
  if picture.mode in ("I", "F"):
    raise ValueError(f"{name} has numbers of any size for pixels (mode {picture.mode}), must have 8 or 16 bits per colour")
  try:
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):  # 16 bits, which Pillow would cut off at 255
      picture = Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    return picture.convert("RGB")
  except (Image.DecompressionBombError, *foreign.ERRORS) as error:
    raise ValueError(f"{name} cannot be read, it may be truncated ({foreign.reason(error)})") from error


def picture_size(source: Any, name: str | None = None) -> tuple[int, int]:
  """Width and height of a picture as stored, from its header; arguments and errors as for `open_picture`.

  A file's first bytes are enough.
  """
  name, picture = _open(source, _name(source, name))
  _check_size(name, *picture.size)
  return picture.size


def check_aspect(name: str, width: int, height: int) -> None:
  """Refuses pictures that are far longer than wide, which take much memory to scale.

  Raises:
    ValueError: names the picture.
  """
  if max(width, height) > _LONGEST * min(width, height):
    raise ValueError(f"{name} is {width} x {height} pixels, must be at most {_LONGEST} times as long as wide")


def check_padded(name: str, width: int, height: int) -> None:
  """Refuses pictures that are too large when they are padded to a square.

  Raises:
    ValueError: names the picture.
  """
  if max(width, height) ** 2 > MAX_PIXELS:
    raise ValueError(f"{name} is {width} x {height} pixels, must have at most {MAX_PIXELS:,} when it is padded to a square")


def _name(source, name) -> str:
  return name or (_CONTENT if isinstance(source, bytes) else "images")


def _open(source, name) -> tuple[str, Image.Image]:
  """A name with the path, and the picture, not decoded yet."""
  if isinstance(source, Image.Image):
    if source.format not in (None, *_OPENED):
      raise ValueError(f"{name}: got the format {source.format}, allowed are {', '.join(FORMATS)}")
    return name, source
  if isinstance(source, (str, os.PathLike)):
    name, file = f"{name}: {os.fspath(source)}", source
    if not os.path.exists(source):
      raise ValueError(f"{name} does not exist")
    if not os.path.isfile(source):
      raise ValueError(f"{name} is not a file")
  elif isinstance(source, bytes):
    name, file = name if name == _CONTENT else f"{name}: {_CONTENT}", io.BytesIO(source)
  else:
    raise ValueError(f"{name}: got {type(source).__name__}, must be a PIL image, a uint8 array or a path")
  try:
    return name, Image.open(file, formats=FORMATS)
  except PermissionError as error:
    raise ValueError(f"{name} cannot be read ({error.strerror})") from error
  except Image.DecompressionBombError as error:
    raise ValueError(f"{name} must have 1 to {MAX_PIXELS:,} pixels ({error})") from error
  except foreign.ERRORS as error:
    raise ValueError(f"{name} is not a picture Pillow can read as {', '.join(FORMATS)}") from error


def _check_size(name, width, height) -> None:
  if not 0 < width * height <= MAX_PIXELS:
    raise ValueError(f"{name} is {width} x {height} pixels, must have 1 to {MAX_PIXELS:,}")
