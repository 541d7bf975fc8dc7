"""Pictures as tiles of one size: LLaVA's any-resolution layout, on the host.

The first tile of a picture holds the whole of it. The others are cut from a copy that is scaled and padded to the grid
pinpoint that fits it best. Their patches are put together again, and cut to the picture's aspect ratio.
"""

from __future__ import annotations

from collections.abc import Sequence
import math

from einops import rearrange
import numpy as np
from transformers.image_processing_utils import select_best_resolution

from hawk_jax import checks
from models.inputs import packing
from models.vision_encoder import TowerConfig

_MOST_TILES = 100  # of a grid pinpoint


def pinpoints(config: TowerConfig, sizes: Sequence[Sequence[int]]) -> tuple[tuple[int, int], ...]:
  """A config's image_grid_pinpoints: heights and widths in pixels that pictures may be scaled to.

  Args:
    config: of the tower.
    sizes: the pinpoints.

  Raises:
    ValueError: they are not multiples of a tile, or of too many tiles.
  """
  tile = config.image_size
  allowed = f"multiples of the tile's {tile} pixels, in pairs [height, width] of at most {_MOST_TILES} tiles"
  fits = lambda side: type(side) is int and side > 0 and side % tile == 0
  for pair in sizes if isinstance(sizes, (list, tuple)) else [sizes]:
    is_pair = isinstance(pair, (list, tuple)) and len(pair) == 2 and all(map(fits, pair))
    if not is_pair or math.prod(pair) > _MOST_TILES * tile**2:
      raise ValueError(f"config: image_grid_pinpoints are {checks.show(sizes)}, must be {allowed}")
  return tuple((height, width) for height, width in sizes)


def tiled_view(
  config: TowerConfig, grid_pinpoints: Sequence[tuple[int, int]], height: int, width: int
) -> tuple[int, np.ndarray]:
  """Tiles of a picture, and where the tokens of the tiled view come from.

  Args:
    config: of the tower.
    grid_pinpoints: of `pinpoints`.
    height: of the picture in pixels, as the image processor gets it.
    width: of the picture in pixels.

  Returns:
    The number of tiles, and [rows, columns] int32 places among the tokens of all of them.
  """
  best = select_best_resolution((height, width), grid_pinpoints)
  down, across = (side // config.image_size for side in best)
  places = np.arange(config.tokens, config.tokens * (1 + down * across), dtype=np.int32)
  places = rearrange(places, "(down across i j) -> (down i) (across j)", down=down, across=across, i=config.side)
  rows, columns = places.shape
  # In the order of transformers, since another order of operations would round differently.
  if width / height > columns / rows:
    padding = (rows - int(round(height * (columns / width), 7))) // 2
    places = places[padding : rows - padding]
  else:
    padding = (columns - int(round(width * (rows / height), 7))) // 2
    places = places[:, padding : columns - padding]
  return 1 + down * across, places


def check_pixels(config: TowerConfig, name: str, pixels, *axes: str) -> np.ndarray:
  """Float32 tiles.

  Args:
    config: of the tower.
    name: of the argument.
    pixels: [*axes, C, H, W].
    *axes: names of the axes before those of a tile.

  Raises:
    ValueError: another shape, no tile, or pixels that `packing.check_pixels` refuses.
  """
  pixels, tile = packing.check_pixels(name, pixels), config.tile_shape
  if pixels.ndim != len(axes) + 3 or pixels.shape[-3:] != tile or not pixels.size:
    raise ValueError(f"{name}: got shape {pixels.shape}, must be [{', '.join(map(str, axes + tile))}]")
  return pixels


def check_sizes(image_sizes, pictures: int) -> list[list[int]]:
  """Height and width of each picture in pixels.

  Args:
    image_sizes: [pictures, 2] integers.
    pictures: how many there are.

  Raises:
    ValueError: another shape, or numbers that are not positive integers.
  """
  allowed = f"positive integers [{pictures}, 2]: height and width of each picture in pixel_values"
  sizes = checks.whole_array("image_sizes", image_sizes, allowed)
  if sizes.shape != (pictures, 2) or sizes.min() < 1:
    raise ValueError(f"image_sizes: got {sizes.dtype} of shape {sizes.shape}, must be {allowed}")
  return sizes.tolist()


def join(pixels: np.ndarray, sizes: Sequence[Sequence[int]], counts: Sequence[int]) -> np.ndarray:
  """[P, C, H, W] all pictures' tiles, without the zeros that pad pictures of fewer tiles.

  Args:
    pixels: [pictures, tiles, C, H, W].
    sizes: of `check_sizes`.
    counts: tiles of each picture.

  Raises:
    ValueError: pixels has another number of tiles for a picture.
  """
  for number, (picture, size, count) in enumerate(zip(pixels, sizes, counts)):
    filled = int(np.flatnonzero(picture.any(axis=(1, 2, 3))).max(initial=-1)) + 1
    if not filled <= count <= len(picture):
      raise ValueError(
        f"image_sizes: picture {number} has size {size}, so {count} tiles, but pixel_values have "
        f"{filled if filled > count else len(picture)} for it"
      )
  return np.concatenate([picture[:count] for picture, count in zip(pixels, counts)])


def without_padding(pixels: np.ndarray, counts: Sequence[int]) -> np.ndarray:
  """[pictures, tiles, C, H, W] with zeros in place of the tiles that a picture does not have."""
  real = np.arange(pixels.shape[1]) < np.asarray(counts)[:, None]
  return pixels * real[..., None, None, None]
