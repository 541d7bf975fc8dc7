"""Pictures and videos of an InternVL prompt to tiles, by transformers' image processor."""

from __future__ import annotations

import numpy as np
from PIL import Image
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil

from hawk_jax import checks
from models.inputs import media
from models.inputs import video
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.internvl import config as config_lib
from models.internvl import inputs

# transformers tries all grids of up to so many tiles; the checkpoints use 12.
_MOST_TILES = 256
_START, _END, _VIDEO = "<img>", "</img>", "<video>"


class Processor(MediaProcessor):
  """Tiles of pictures and frames; the latter are scaled to one tile each.

  The sizes in some checkpoints' video_preprocessor_config.json are wrong, so frames are scaled and normalized as pictures.
  """

  def __init__(self, directory, config, tokenizer):
    super().__init__(config, tokenizer)
    self.video_token = _VIDEO
    self.config = config_lib.from_hf(config)
    for token, wanted in ((_START, self.config.vision_start_token_id), (_END, self.config.vision_end_token_id)):
      if (found := tokenizer.convert_tokens_to_ids(token)) != wanted:
        raise ValueError(f"the tokenizer's id of {token} is {found}, must be {wanted}: it precedes {self.image_token}")
    with media.reading():
      self.processor = GotOcr2ImageProcessorPil.from_pretrained(directory)
    media.check_normalization(self.processor)
    media.check_tile(self.processor, self.config.vision.image_size)
    self._limits(None, None)

  def sample(self, total, rate, fps, max_frames):
    """The middle frames of equal parts of the video, as transformers' InternVL video processor takes them."""
    count = min(len(video.sample(total, rate, fps, max_frames, multiple=1)), total)
    return ((np.arange(count) + 0.5) * total / count).astype(np.int64)

  def __call__(self, rows, min_pixels=None, max_pixels=None) -> Media:
    """Adds `pixel_values`, `tile_grids` and `videos`, as `InternVL.pack` takes them.

    Raises:
      ValueError: limits below one tile or in the wrong order.
    """
    limits = self._limits(min_pixels, max_pixels)
    tiles, grids, videos, image_texts, video_texts = [], [], [], [], []
    for item in (item for row in rows for item in row):
      if isinstance(item, Image.Image):
        pixels = self._tiles([item], crop_to_patches=True, **limits)
        grids.append(inputs.grid(item.height, item.width, self.config.vision.image_size, *limits.values()))
        videos.append(-1)
        image_texts.append(self._text(len(pixels)))
      else:
        pixels = self._tiles(list(map(Image.fromarray, item.frames)), crop_to_patches=False)
        grids += [(1, 1)] * len(pixels)
        videos += [len(video_texts)] * len(pixels)
        video_texts.append("\n".join(f"Frame{number}: {self._text(1)}" for number in range(1, 1 + len(pixels))))
      tiles.append(pixels)
    if not tiles:
      return Media({})
    arrays = {"pixel_values": np.concatenate(tiles), "tile_grids": np.asarray(grids), "videos": np.asarray(videos)}
    return Media(arrays, image_texts, video_texts)

  def _tiles(self, pictures, **settings):
    return np.asarray(self.processor(images=pictures, return_tensors="np", **settings)["pixel_values"])

  def _text(self, tiles):
    return f"{_START}{self.image_token * self.config.vision.tokens * tiles}{_END}"

  def _limits(self, min_pixels, max_pixels) -> dict[str, int]:
    """The smallest and largest number of tiles of a picture."""
    tile = self.config.vision.image_size**2
    least = self.processor.min_patches if min_pixels is None else -(-min_pixels // tile)
    most = self.processor.max_patches if max_pixels is None else max_pixels // tile
    for name, value in (("min_patches", least), ("max_patches", most)):
      checks.whole(f"{media.FILES[0]}: {name}", value)
    most = min(most, _MOST_TILES)
    if not 1 <= least <= most:
      raise ValueError(
        f"min_pixels and max_pixels: got {checks.show(min_pixels)} and {checks.show(max_pixels)}, so {checks.show(least)} "
        f"to {most} tiles of {tile} pixels; must be at least one, at most {_MOST_TILES}, and in this order"
      )
    return {"min_patches": least, "max_patches": most}
