"""Hugging Face arrays of a LLaVA batch to fixed shapes, on the host.

A tile is what the vision tower takes. LLaVA-1.5 makes one of each picture. LLaVA-NeXT makes several: the whole picture, then
the tiles of one scaled and padded to the grid pinpoint that fits it best, whose patches are put together again, cut to the
picture's aspect ratio and given a newline after every row.
"""

from __future__ import annotations

import dataclasses

from einops import rearrange
import numpy as np
from transformers.image_processing_utils import select_best_resolution

from models import packing
from models.buckets import bucket
from models.llava.config import LlavaConfig
from models.vision_language import Inputs

NEWLINE = -1


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a picture's visual tokens follow from its tiles.

  Attributes:
    tiles: tiles of the picture.
    grids: rows and columns of each view's tokens, in order; a newline is one column more.
    slots: [count] int32 row among the features of the picture's tiles, or NEWLINE.
  """

  tiles: int
  grids: tuple[tuple[int, int], ...]
  slots: np.ndarray


def whole_layout(config: LlavaConfig) -> Layout:
  """A picture that is one tile."""
  side, tokens = config.vision.side, config.vision.tokens
  grids = ((1, 1),) * config.vision.keep_class_token + ((side, side),)
  return Layout(1, grids, np.arange(tokens, dtype=np.int32))


def tiled_layout(config: LlavaConfig, height: int, width: int) -> Layout:
  """A picture of LLaVA-NeXT: base view, then tiled view.

  Args:
    config: with grid pinpoints.
    height: of the picture in pixels, as the image processor got it.
    width: of it.

  Raises:
    ValueError: a picture so long that scaled to any pinpoint it has no width.
  """
  vision = config.vision
  base = whole_layout(config)
  best = select_best_resolution((height, width), config.grid_pinpoints)
  if best is None:
    raise ValueError(f"image_sizes: a picture of {height} x {width} pixels has no width once it is scaled to a tile")
  down, across = (side // vision.image_size for side in best)
  slots = np.arange(vision.tokens, vision.tokens * (1 + down * across), dtype=np.int32)
  slots = rearrange(slots, "(down across i j) -> (down i) (across j)", down=down, across=across, i=vision.side)
  rows, columns = slots.shape
  # transformers' own order of operations: another may round elsewhere.
  if width / height > columns / rows:
    padding = (rows - int(round(height * (columns / width), 7))) // 2
    slots = slots[padding:rows - padding]
  else:
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    slots = slots[:, padding:columns - padding]
  slots = np.pad(slots, ((0, 0), (0, 1)), constant_values=NEWLINE)
  return Layout(1 + down * across, base.grids + (slots.shape,), np.concatenate([base.slots, slots.reshape(-1)]))


def pack(config: LlavaConfig, input_ids, attention_mask=None, pixel_values=None, image_sizes=None) -> Inputs:
  """Plans a batch; see `Llava.pack` and `LlavaNext.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  tiles, layouts = np.zeros((0,) + config.vision.tile_shape, np.float32), []
  argument, noun, sizes = "pixel_values", "shape", []
  if config.grid_pinpoints:
    argument, noun = "image_sizes", "size"
    packing.check_together("image_sizes", image_sizes, "pixel_values", pixel_values)
  if pixel_values is not None:
    pixels = np.asarray(pixel_values, np.float32)
    expected = ("pictures", "tiles")[:1 + bool(config.grid_pinpoints)] + config.vision.tile_shape
    if pixels.ndim != len(expected) or pixels.shape[-3:] != expected[-3:] or not pixels.size:
      raise ValueError(f"pixel_values: got shape {pixels.shape}, must be [{', '.join(map(str, expected))}]")
    if config.grid_pinpoints:
      sizes = _check_sizes(image_sizes, len(pixels))
      layouts = [tiled_layout(config, *size) for size in sizes]
      tiles = _real_tiles(pixels, sizes, layouts)
    else:
      tiles, sizes, layouts = pixels, [config.vision.tile_shape] * len(pixels), [whole_layout(config)] * len(pixels)

  room = bucket(len(tiles), minimum=1)
  slots, start = [], 0
  for layout in layouts:
    # The newline's feature row follows those of all tiles.
    slots.append(np.where(layout.slots == NEWLINE, room * config.vision.tokens, layout.slots + start * config.vision.tokens))
    start += layout.tiles
  positions = [np.arange(len(layout.slots), dtype=np.int32)[:, None] for layout in layouts]
  pictures = {config.image_token_id: packing.Pictures("image", argument, noun, sizes, slots, positions)}
  prompt = packing.plan_prompts(config.text, tokens, mask, pictures)
  padded = np.pad(tiles, ((0, room - len(tiles)),) + ((0, 0),) * 3)
  return Inputs(prompt=prompt, vision=padded if room else None)


def _check_sizes(image_sizes, count) -> list[list[int]]:
  sizes = np.asarray(image_sizes)
  if sizes.shape != (count, 2) or not np.issubdtype(sizes.dtype, np.integer) or sizes.min() < 1:
    raise ValueError(f"image_sizes: got {sizes.dtype} of shape {sizes.shape}, must be positive integers [{count}, 2]: "
                     "height and width of each picture in pixel_values")
  return sizes.tolist()


def _real_tiles(pixels, sizes, layouts) -> np.ndarray:
  """[P, C, H, W]: every picture's tiles without the padding, which is zero."""
  for number, (picture, size, layout) in enumerate(zip(pixels, sizes, layouts)):
    filled = int(np.flatnonzero(picture.any(axis=(1, 2, 3))).max(initial=-1)) + 1
    if layout.tiles > len(picture) or filled > layout.tiles:
      found = max(filled, 1) if filled > layout.tiles else len(picture)
      raise ValueError(f"image_sizes: picture {number} has size {size}, so {layout.tiles} tiles, but pixel_values have "
                       f"{found} for it")
  return np.concatenate([picture[:layout.tiles] for picture, layout in zip(pixels, layouts)])
