"""Pictures of a LLaVA prompt to tiles, by transformers' image processors."""

from __future__ import annotations

import numpy as np
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil
from transformers.models.llava_next.image_processing_pil_llava_next import LlavaNextImageProcessorPil

from models.inputs import media
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.llava import config as config_lib
from models.llava import inputs

_PROCESSORS = {
  "CLIPImageProcessor": CLIPImageProcessorPil,
  "LlavaImageProcessor": LlavaImageProcessorPil,
  "LlavaNextImageProcessor": LlavaNextImageProcessorPil,
}


class Processor(MediaProcessor):
  """Tiles of pictures."""

  def __init__(self, directory, config, tokenizer):
    super().__init__(config, tokenizer)
    self.video_token = None  # LLaVA-1.5 and LLaVA-NeXT take pictures only
    self.config = config_lib.from_hf(config)
    settings, _ = CLIPImageProcessorPil.get_image_processor_dict(directory)
    name = settings.get("image_processor_type", "CLIPImageProcessor").removesuffix("Fast").removesuffix("Pil")
    if name not in _PROCESSORS:
      raise ValueError(f"image_processor_type is {name!r}, supported are {', '.join(_PROCESSORS)}")
    self.processor = _PROCESSORS[name].from_dict(settings)

  def __call__(self, rows, min_pixels=None, max_pixels=None) -> Media:
    """Adds `pixel_values`, and `image_sizes` for LLaVA-NeXT, as the model's `pack` takes them.

    Raises:
      ValueError: min_pixels or max_pixels given.
    """
    media.check_no_limits(min_pixels, max_pixels)
    pictures = media.pictures(rows)
    if not pictures:
      return Media({})
    if self.config.grid_pinpoints:
      layouts = [inputs.tiled_layout(self.config, picture.height, picture.width) for picture in pictures]
    else:
      layouts = [inputs.whole_layout(self.config)] * len(pictures)
    arrays = self.processor(images=pictures, return_tensors="np")
    return Media(
      {name: np.asarray(value) for name, value in arrays.items()},
      [self.image_token * len(layout.slots) for layout in layouts],
    )

  def as_seen(self, images):
    """Of LLaVA-1.5, the square in the middle, or a square around the picture; LLaVA-NeXT sees the whole picture."""
    if self.config.grid_pinpoints:
      return list(images)
    if getattr(self.processor, "do_pad", False):
      return list(map(media.padded, images))
    return list(map(media.cropped, images)) if self.processor.do_center_crop else list(images)
