"""Arrays of a Hugging Face processor for LLaVA to fixed shapes, on the host.

A tile is what the vision tower takes. LLaVA-1.5 makes one of each picture. LLaVA-NeXT makes several: first the whole
picture, then the tiles of a copy that is scaled and padded to the grid pinpoint that fits it best. The patches of those
tiles are put together again, cut to the picture's aspect ratio, and followed by a newline after every row.
"""

from __future__ import annotations

import dataclasses

from einops import rearrange
import numpy as np
from transformers.image_processing_utils import select_best_resolution

from hawk_jax import checks
from hawk_jax.buckets import bucket
from models.inputs import packing
from models.llava.config import LlavaConfig
from models.vision_language import Inputs

NEWLINE = -1


@dataclasses.dataclass(frozen=True)
class Layout:
  """How a picture's visual tokens follow from its tiles.

  Attributes:
    tiles: tiles of the picture.
    grids: rows and columns of each view, in order, and whether a newline follows every row.
    slots: [count] int32 row among the features of the picture's tiles, or NEWLINE.
  """

  tiles: int
  grids: tuple[tuple[int, int, bool], ...]
  slots: np.ndarray


def whole_layout(config: LlavaConfig) -> Layout:
  """A picture that is one tile."""
  side, tokens = config.vision.side, config.vision.tokens
  grids = ((1, 1, False),) * config.vision.keep_class_token + ((side, side, False),)
  return Layout(1, grids, np.arange(tokens, dtype=np.int32))


def tiled_layout(config: LlavaConfig, height: int, width: int) -> Layout:
  """A picture of LLaVA-NeXT: base view, then tiled view.

  A tile of 2 x 2 patches (slots 0 to 3) and a picture as wide as two tiles (slots 4 to 11) give the base view 0 1 2 3 and
  the tiled view below, in which N is the newline:

    4 5 8 9 N
    6 7 10 11 N

  Args:
    config: with grid pinpoints.
    height: of the picture in pixels, as the image processor gets it.
    width: of the picture in pixels.
  """
  vision = config.vision
  base = whole_layout(config)
  best = select_best_resolution((height, width), config.grid_pinpoints)
  down, across = (side // vision.image_size for side in best)
  slots = np.arange(vision.tokens, vision.tokens * (1 + down * across), dtype=np.int32)
  slots = rearrange(slots, "(down across i j) -> (down i) (across j)", down=down, across=across, i=vision.side)
  rows, columns = slots.shape
  # The order of operations is transformers'; another would round differently.
  if width / height > columns / rows:
    padding = (rows - int(round(height * (columns / width), 7))) // 2
    slots = slots[padding : rows - padding]
  else:
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    slots = slots[:, padding : columns - padding]
  grids = base.grids + ((*slots.shape, True),)
  slots = np.pad(slots, ((0, 0), (0, 1)), constant_values=NEWLINE)
  return Layout(1 + down * across, grids, np.concatenate([base.slots, slots.reshape(-1)]))


def pack(
  config: LlavaConfig, input_ids, attention_mask=None, pixel_values=None, image_sizes=None, shards: int = 1
) -> Inputs:
  """Plans a batch; see `Llava.pack` and `LlavaNext.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  if config.grid_pinpoints:
    packing.check_together("image_sizes", image_sizes, "pixel_values", pixel_values)
  if pixel_values is None:
    tiles, sizes, layouts = np.zeros((0,) + config.vision.tile_shape, np.float32), [], []
  elif config.grid_pinpoints:
    tiles, sizes, layouts = _tiled_pictures(config, pixel_values, image_sizes)
  else:
    tiles = _check_pixels(config, pixel_values, "pictures")
    sizes, layouts = [tile.shape for tile in tiles], [whole_layout(config)] * len(tiles)

  room, per_tile = -(-bucket(len(tiles), minimum=1) // shards) * shards, config.vision.tokens
  slots, start = [], 0
  for layout in layouts:
    # The newline's feature row follows those of all tiles.
    slots.append(np.where(layout.slots == NEWLINE, room * per_tile, layout.slots + start * per_tile))
    start += layout.tiles
  positions = [np.arange(len(layout.slots), dtype=np.int32)[:, None] for layout in layouts]
  argument, noun = ("image_sizes", "size") if config.grid_pinpoints else ("pixel_values", "tile")
  views = [[layout.grids] for layout in layouts]
  pictures = {config.image_token_id: packing.Pictures("image", argument, noun, sizes, slots, positions, views)}
  prompt, views = packing.plan_prompts(config.text, tokens, mask, pictures)
  padded = np.pad(tiles, ((0, room - len(tiles)),) + ((0, 0),) * 3)
  return Inputs(prompt, padded if room else None, views)


def without_padding(pixels: np.ndarray, layouts: list[Layout]) -> np.ndarray:
  """[pictures, tiles, C, H, W] with zeros in place of the tiles that a picture does not have."""
  real = np.arange(pixels.shape[1]) < np.asarray([layout.tiles for layout in layouts])[:, None]
  return pixels * real[..., None, None, None]


def _check_pixels(config, pixel_values, *axes) -> np.ndarray:
  pixels, tile = packing.check_pixels("pixel_values", pixel_values), config.vision.tile_shape
  if pixels.ndim != len(axes) + 3 or pixels.shape[-3:] != tile or not pixels.size:
    raise ValueError(f"pixel_values: got shape {pixels.shape}, must be [{', '.join(map(str, axes + tile))}]")
  return pixels


def _tiled_pictures(config, pixel_values, image_sizes):
  """[P, C, H, W] all pictures' tiles without the zeros that pad them, their sizes and their layouts."""
  pixels = _check_pixels(config, pixel_values, "pictures", "tiles")
  allowed = f"positive integers [{len(pixels)}, 2]: height and width of each picture in pixel_values"
  sizes = checks.whole_array("image_sizes", image_sizes, allowed)
  if sizes.shape != (len(pixels), 2) or sizes.min() < 1:
    raise ValueError(f"image_sizes: got {sizes.dtype} of shape {sizes.shape}, must be {allowed}")
  layouts = [tiled_layout(config, *size) for size in sizes.tolist()]
  for number, (picture, size, layout) in enumerate(zip(pixels, sizes.tolist(), layouts)):
    filled = int(np.flatnonzero(picture.any(axis=(1, 2, 3))).max(initial=-1)) + 1
    if not filled <= layout.tiles <= len(picture):
      raise ValueError(
        f"image_sizes: picture {number} has size {size}, so {layout.tiles} tiles, but pixel_values have "
        f"{filled if filled > layout.tiles else len(picture)} for it"
      )
  tiles = np.concatenate([picture[: layout.tiles] for picture, layout in zip(pixels, layouts)])
  return tiles, sizes.tolist(), layouts
