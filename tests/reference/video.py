"""Videos of which recorded goldens exist: video.safetensors holds what transformers' video processor makes of them.

`make_video_goldens.py` writes it; the processor needs torch and torchvision.
"""

from __future__ import annotations

import pathlib

import numpy as np

GOLDENS = pathlib.Path(__file__).with_suffix(".safetensors")

# frames of the file, its frames a second, wanted frames a second, most frames. Not among them: (899, 29.97, 1.0, 768) and
# the like, of which the processor's float32 steps ask for one frame past the end.
SAMPLINGS = (
  *((total, 25.0, 2.0, 64) for total in (2, 3, 4, 5, 7, 25, 26, 49, 50, 51, 74, 99, 100, 250, 775, 1000, 5000)),
  *((total, 29.97, fps, 768) for total in (31, 90, 299, 300, 301, 750, 1800) for fps in (0.5, 1.0, 2.0, 3.3)),
  (24, 8.0, 2.0, 64),
  (24, 8.0, 8.0, 64),
  (24, 8.0, 30.0, 64),
  (24, 8.0, 2.0, 4),
  (24, 8.0, 2.0, 5),
  (9, 60.0, 2.0, 64),
  (123, 23.976, 4.0, 33),
  (10_000, 30.0, 1.0, 16),
  (10, 0.5, 2.0, 8),
)
# frames, height, width, frames a second, wanted, most; least and most pixels of a frame
CLIPS = {
  "digits": (24, 192, 192, 8.0, 2.0, 64, 1024, 262_144),
  "odd_size": (11, 70, 101, 10.0, 4.0, 64, 1024, 262_144),
  "scaled_down": (8, 120, 200, 4.0, 2.0, 6, 1024, 8192),
  "scaled_up": (6, 20, 36, 5.0, 5.0, 64, 16_384, 262_144),
}
PATCH, MERGE, DEEP = 8, 2, 2
ROWS = 37  # every so many rows of patches are in the goldens


def frames(name: str) -> np.ndarray:
  """[T, H, W, 3] uint8 frames of a clip: waves that move."""
  total, height, width, *_ = CLIPS[name]
  time, row, column, channel = np.ogrid[:total, :height, :width, :3]
  wave = np.sin(row / (9 + channel) + time / 3) + np.cos(column / (11 - channel) - time / 5 + row / 40)
  return np.round(127.5 + 63 * wave).astype(np.uint8)
