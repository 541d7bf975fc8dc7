"""Pictures of a Qwen2.5-VL prompt to patches, by transformers' image processor."""

from __future__ import annotations

import warnings

import numpy as np
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil


class Images:
  """A checkpoint's image processor."""

  def __init__(self, directory):
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", FutureWarning)  # checkpoints say min_pixels and max_pixels
      self.processor = Qwen2VLImageProcessorPil.from_pretrained(directory)

  def __call__(self, pictures, min_pixels: int | None = None, max_pixels: int | None = None):
    """Patches of pictures.

    Args:
      pictures: RGB images.
      min_pixels: smaller ones are scaled up to this; None: as the checkpoint says.
      max_pixels: larger ones are scaled down to this; None: as the checkpoint says.

    Returns:
      A dict of `pixel_values` [patches, C] and `image_grid_thw` [pictures, 3]; and each picture's visual tokens.

    Raises:
      ValueError: limits below one visual token or in the wrong order, or a picture over 200 times as long as wide.
    """
    size = dict(self.processor.size)
    low = size["shortest_edge"] if min_pixels is None else min_pixels
    high = size["longest_edge"] if max_pixels is None else max_pixels
    token = (self.processor.patch_size * self.processor.merge_size) ** 2
    if max_pixels is not None and max_pixels < token:
      raise ValueError(f"max_pixels: got {max_pixels}, must be at least {token}, one visual token")
    if not 0 < low <= high:
      raise ValueError(f"min_pixels and max_pixels: got {low} and {high}, must be positive and in this order")
    arrays = self.processor(images=list(pictures), size={"shortest_edge": low, "longest_edge": high},
                            return_tensors="np")
    grids = np.asarray(arrays["image_grid_thw"])
    counts = grids.prod(axis=1) // self.processor.merge_size**2
    return {"pixel_values": np.asarray(arrays["pixel_values"]), "image_grid_thw": grids}, counts.tolist()
