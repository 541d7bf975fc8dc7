"""Arrays of a Hugging Face processor for InternVL to fixed shapes, on the host.

A tile is what the vision tower takes, and has the same number of visual tokens always. A picture is scaled to a grid of
tiles whose proportions are close to its own; if that is more than one, a tile with the whole picture follows them.
"""

from __future__ import annotations

from einops import rearrange
import numpy as np
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import get_optimal_tiled_canvas

from hawk_jax import checks
from hawk_jax.buckets import bucket
from models.inputs import packing
from models.internvl.config import InternVLConfig
from models.vision_language import Inputs

LEAST_TILES, MOST_TILES = 1, 12


def grid(height: int, width: int, side: int, least: int = LEAST_TILES, most: int = MOST_TILES) -> tuple[int, int]:
  """Rows and columns of tiles of a picture.

  Args:
    height: of the picture in pixels.
    width: of the picture in pixels.
    side: of a tile in pixels.
    least: smallest number of tiles, the one with the whole picture not counted.
    most: largest number of tiles, likewise.
  """
  columns, rows = get_optimal_tiled_canvas((height, width), (side, side), least, most)
  return rows, columns


def tiles_of(rows: int, columns: int) -> int:
  """Tiles of a picture with such a grid, the one with the whole picture included."""
  return rows * columns + (rows * columns > 1)


def pack(
  config: InternVLConfig, input_ids, attention_mask=None, pixel_values=None, tile_grids=None, videos=None, shards: int = 1
) -> Inputs:
  """Plans a batch; see `InternVL.pack`."""
  tokens, mask = packing.check_tokens(input_ids, attention_mask, config.text.vocab_size)
  vision = config.vision
  tiles = _check_pixels(vision, pixel_values)
  grids = [[1, 1]] * len(tiles) if tile_grids is None else _check_grids(tile_grids, len(tiles))
  counts = [vision.tokens * tiles_of(*grid) for grid in grids]
  starts = np.cumsum([0, *counts])
  slots = [np.arange(start, start + count, dtype=np.int32) for start, count in zip(starts, counts)]
  pictures = packing.Pictures(
    kind="image",
    argument="pixel_values" if tile_grids is None else "tile_grids",
    noun="tile" if tile_grids is None else "grid",
    sizes=[vision.tile_shape] * len(tiles) if tile_grids is None else grids,
    slots=slots,
    positions=[np.arange(count, dtype=np.int32)[:, None] for count in counts],
    views=[[_views(vision.side, *grid)] for grid in grids],
    places=None if videos is None else _places(videos, slots, vision.tokens),
    drawn=[_drawn(vision.side, *grid) for grid in grids],
  )
  prompt, views = packing.plan_prompts(
    config.text, tokens, mask, {config.image_token_id: pictures}, config.vision_end_token_id, config.eos_token_ids
  )
  room = -(-bucket(len(tiles), minimum=1) // shards) * shards
  padded = np.pad(tiles, ((0, room - len(tiles)),) + ((0, 0),) * 3)
  return Inputs(prompt, padded if room else None, views)


def _views(side, rows, columns):
  """The grid of tiles, and the tile with the whole picture."""
  return [(side * rows, side * columns, False)] + [(side, side, False)] * (rows * columns > 1)


def _drawn(side, rows, columns):
  """Tokens come tile by tile, and are drawn row by row."""
  tokens = np.arange(side**2 * tiles_of(rows, columns))
  tiled, whole = np.split(tokens, [side**2 * rows * columns])
  grid = rearrange(tiled, "(down across i j) -> (down i across j)", down=rows, across=columns, i=side)
  return np.concatenate([grid, whole])


def _places(videos, slots, tokens):
  """Frames of a video share ids; tokens of pictures have ids of their own, after those of all frames."""
  videos = checks.whole_array("videos", videos, "whole numbers [pictures and frames]")
  if videos.shape != (len(slots),):
    raise ValueError(f"videos: got shape {videos.shape} for {len(slots)} pictures and frames")
  if not -1 <= videos.min(initial=-1) <= videos.max(initial=-1) < max(len(slots), 1):
    raise ValueError(f"videos: from {videos.min()} to {videos.max()}, must be -1 for pictures, else the video's number")
  for number, (video, rows) in enumerate(zip(videos.tolist(), slots)):
    if video >= 0 and len(rows) != tokens:
      raise ValueError(f"videos: frame {number} of video {video} has several tiles in tile_grids, must have one")
  first = tokens * (videos.max(initial=-1) + 1)
  return [first + rows if video < 0 else tokens * video + np.arange(tokens) for video, rows in zip(videos, slots)]


def _check_pixels(vision, pixel_values) -> np.ndarray:
  tile = vision.tile_shape
  if pixel_values is None:
    return np.zeros((0, *tile), np.float32)
  pixels = packing.check_pixels("pixel_values", pixel_values)
  if pixels.ndim != 4 or pixels.shape[1:] != tile or not pixels.size:
    raise ValueError(f"pixel_values: got shape {pixels.shape}, must be [tiles, {', '.join(map(str, tile))}]")
  return pixels


def _check_grids(tile_grids, tiles) -> list[list[int]]:
  grids = checks.whole_array("tile_grids", tile_grids, "positive integers [pictures, 2]")
  if grids.ndim != 2 or grids.shape[1] != 2 or grids.min(initial=1) < 1:
    raise ValueError(f"tile_grids: got {grids.dtype} of shape {grids.shape}, must be positive integers [pictures, 2]")
  grids = grids.tolist()
  if (wanted := sum(tiles_of(*grid) for grid in grids)) != tiles:
    raise ValueError(f"tile_grids: {grids} are {wanted} tiles, pixel_values have {tiles}")
  return grids
