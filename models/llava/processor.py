"""Pictures of a LLaVA prompt to tiles, by transformers' image processors."""

from __future__ import annotations

import numpy as np
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from hawk_jax import checks
from models.inputs import media
from models.inputs import pictures
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.llava import config as config_lib
from models.llava import inputs

_PROCESSORS = {
  "CLIPImageProcessor": CLIPImageProcessorPil,
  "LlavaImageProcessor": LlavaImageProcessorPil,
  "LlavaNextImageProcessor": LlavaNextImageProcessorPil,
}
_LARGEST_SIDE = 4096  # of a tile in pixels


class Processor(MediaProcessor):
  """Tiles of pictures."""

  def __init__(self, directory, config, tokenizer):
    super().__init__(config, tokenizer)
    self.video_token = None  # LLaVA-1.5 and LLaVA-NeXT take pictures only
    self.config = config_lib.from_hf(config)
    with media.reading():
      settings, _ = CLIPImageProcessorPil.get_image_processor_dict(directory)
    name = str(settings.get("image_processor_type", "CLIPImageProcessor")).removesuffix("Fast").removesuffix("Pil")
    if name not in _PROCESSORS:
      raise ValueError(f"image_processor_type is {name!r}, supported are {', '.join(_PROCESSORS)}")
    with media.reading():
      self.processor = _PROCESSORS[name].from_dict(settings)
    media.check_normalization(self.processor)
    for name in ("size", "crop_size"):
      for side, value in dict(getattr(self.processor, name) or {}).items():
        checks.whole(f"preprocessor_config.json: {name}.{side}", value, 1, _LARGEST_SIDE)

  def check_shape(self, name, width, height):
    if self.config.grid_pinpoints:
      return  # tiles bound the size
    pictures.check_aspect(name, width, height)
    if getattr(self.processor, "do_pad", False):
      pictures.check_padded(name, width, height)

  def __call__(self, rows, min_pixels=None, max_pixels=None) -> Media:
    """Adds `pixel_values`, and `image_sizes` for LLaVA-NeXT, as the model's `pack` takes them.

    Raises:
      ValueError: min_pixels or max_pixels given.
    """
    media.check_no_limits(min_pixels, max_pixels)
    flat = media.pictures(rows)
    if not flat:
      return Media({})
    if self.config.grid_pinpoints:
      layouts = [inputs.tiled_layout(self.config, picture.height, picture.width) for picture in flat]
    else:
      layouts = [inputs.whole_layout(self.config)] * len(flat)
    arrays = self.processor(images=flat, return_tensors="np")
    return Media(
      {name: np.asarray(value) for name, value in arrays.items()},
      [self.image_token * len(layout.slots) for layout in layouts],
    )
