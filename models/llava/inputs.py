"""Arrays of a Hugging Face processor for LLaVA to fixed shapes, on the host.

A tile is one input of the vision tower. LLaVA-1.5 makes one tile of each picture. LLaVA-NeXT makes several
(`models.inputs.tiles`), and has a newline after every row of the tiled view.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from hawk_jax.buckets import bucket
from models.inputs import packing
from models.inputs import tiles as tiles_lib
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
  base = whole_layout(config)
  tiles, slots = tiles_lib.tiled_view(config.vision, config.grid_pinpoints, height, width)
  grids = base.grids + ((*slots.shape, True),)
  slots = np.pad(slots, ((0, 0), (0, 1)), constant_values=NEWLINE)
  return Layout(tiles, grids, np.concatenate([base.slots, slots.reshape(-1)]))


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
    pixels = tiles_lib.check_pixels(config.vision, "pixel_values", pixel_values, "pictures", "tiles")
    sizes = tiles_lib.check_sizes(image_sizes, len(pixels))
    layouts = [tiled_layout(config, *size) for size in sizes]
    tiles = tiles_lib.join(pixels, sizes, [layout.tiles for layout in layouts])
  else:
    tiles = tiles_lib.check_pixels(config.vision, "pixel_values", pixel_values, "pictures")
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
