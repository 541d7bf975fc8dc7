"""Pictures and videos of a LLaVA-OneVision prompt to tiles, by transformers' image processors."""

from __future__ import annotations

import numpy as np
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import LlavaOnevisionImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from models.inputs import media
from models.inputs import pictures as pictures_lib
from models.inputs import video
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.llava_onevision import config as config_lib
from models.llava_onevision import inputs


class Processor(MediaProcessor):
  """Tiles of pictures and frames; frames are scaled to one tile each, whatever their aspect ratio."""

  def __init__(self, directory, config, tokenizer):
    super().__init__(config, tokenizer)
    self.config = config_lib.from_hf(config)
    with media.reading():
      settings, _ = LlavaOnevisionImageProcessorPil.get_image_processor_dict(directory)
    name = str(settings.get("image_processor_type", "LlavaOnevisionImageProcessor")).removesuffix("Fast").removesuffix("Pil")
    if name != "LlavaOnevisionImageProcessor":
      raise ValueError(f"image_processor_type is {name!r}, supported is LlavaOnevisionImageProcessor")
    with media.reading():
      self.pictures = LlavaOnevisionImageProcessorPil.from_dict(settings)
      self.frames = SiglipImageProcessorPil(
        size=dict(self.pictures.size),
        resample=self.pictures.resample,
        image_mean=self.pictures.image_mean,
        image_std=self.pictures.image_std,
      )
      found = tuple(map(tuple, self.pictures.image_grid_pinpoints))
    media.check_normalization(self.pictures)
    media.check_tile(self.pictures, self.config.vision.image_size)
    wanted = self.config.grid_pinpoints
    if found != wanted:
      raise ValueError(f"the image processor's image_grid_pinpoints are {list(found)}, config.json has {list(wanted)}")

  def sample(self, total, rate, fps, max_frames):
    """Frames evenly spread from the first to the last, as the authors' code takes them."""
    count = min(len(video.sample(total, rate, fps, max_frames, multiple=1)), total)
    return np.linspace(0, total - 1, count).astype(np.int64)

  def __call__(self, rows, min_pixels=None, max_pixels=None) -> Media:
    """The arrays of `LlavaOnevision.pack`; videos of fewer frames end in zeros.

    Raises:
      ValueError: min_pixels or max_pixels given, or one of several pictures that is too large when padded to a square.
    """
    media.check_no_limits(min_pixels, max_pixels)
    for number, row in enumerate(rows):
      if len(some := media.pictures([row])) > 1:
        for at, picture in enumerate(some):
          pictures_lib.check_padded(f"images: picture {at} of prompt {number}", *picture.size)
    arrays, image_texts, video_texts = {}, [], []
    if any(pictures := [media.pictures([row]) for row in rows]):
      arrays |= self.pictures(images=[row for row in pictures if row], return_tensors="np")
      layouts = inputs.picture_layouts(self.config, arrays["image_sizes"].tolist(), arrays["batch_num_images"])
      image_texts = [self.image_token * layout.count for layout in layouts]
    if clips := media.videos(rows):
      counts = [len(clip.frames) for clip in clips]
      frames = [self.frames(images=list(clip.frames), return_tensors="np")["pixel_values"] for clip in clips]
      missing = lambda count: ((0, max(counts) - count),) + ((0, 0),) * 3
      arrays["pixel_values_videos"] = np.stack([np.pad(clip, missing(len(clip))) for clip in frames])
      arrays["video_frames"] = np.asarray(counts)
      video_texts = [self.video_token * inputs.video_layout(self.config, count).count for count in counts]
    return Media({name: np.asarray(value) for name, value in arrays.items()}, image_texts, video_texts)
