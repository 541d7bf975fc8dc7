"""Pictures and videos of a Qwen2.5-VL prompt to patches.

Pictures go through transformers' own image processor. Its video processor needs torch, so Pillow resizes video frames here:
in the tests, their pixels differ from those of the video processor by at most 1.5 of 255 levels.
"""

from __future__ import annotations

import numpy as np
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from models.qwen_vl.processor import PatchProcessor


class Processor(PatchProcessor):
  """Frames have the limits of pictures, and a video is one run of visual tokens."""

  def videos(self, clips, min_pixels, max_pixels):
    """Also returns `second_per_grid_ts` [videos], the seconds that two frames cover."""
    seconds = np.asarray([self.processor.temporal_patch_size * clip.interval for clip in clips])
    return {**super().videos(clips, min_pixels, max_pixels), "second_per_grid_ts": seconds}

  def frame_size(self, shape, min_pixels, max_pixels):
    low, high = self.limits(min_pixels, max_pixels)
    return smart_resize(*shape[1:], factor=self.unit, min_pixels=low, max_pixels=high)

  def video_text(self, video, grid):
    return self.video_token * self.tokens(grid)
