"""Digits that people wrote by hand: scikit-learn's (UCI optical digits), and distorted ones for training.

scikit-learn and SciPy are imported where they are used: together they take two seconds, and most commands that know of the
digits task draw nothing.
"""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image

# Pixels of a digit's side.
SIDE = 16
# scikit-learn keeps the digits of one writer together, so ranges keep writers apart.
SPLITS = {"train": (0, 1200), "calibration": (1200, 1440), "test": (1440, 1797)}
# Versions of every training digit: the original, and distorted ones.
VARIANTS = 40


@functools.cache
def originals() -> tuple[np.ndarray, np.ndarray]:
  """All digits as [1797, 16, 16] float32 ink from 0 to 1, and their labels [1797]."""
  from sklearn import datasets

  data = datasets.load_digits()
  ink = [
    np.asarray(Image.fromarray((image * (255 / 16)).astype(np.uint8)).resize((SIDE, SIDE), Image.Resampling.BICUBIC))
    for image in data.images
  ]
  return np.stack(ink).astype(np.float32) / 255, data.target


@functools.cache
def varied() -> np.ndarray:
  """The training digits, [VARIANTS * 1200, 16, 16]: the originals, then versions that are slanted, rotated, scaled, bent,
  thinner or thicker."""
  from scipy import ndimage

  low, high = SPLITS["train"]
  ink, rng = originals()[0][low:high], np.random.default_rng(0)
  offsets = np.stack(np.meshgrid(*[np.arange(SIDE) - (SIDE - 1) / 2] * 2, indexing="ij"))
  smooth = ndimage.zoom(np.eye(4), (SIDE / 4, 1), order=3, mode="nearest")  # [16, 4], from a coarse grid to pixels
  variants = [ink]
  for _ in range(VARIANTS - 1):
    mapping = np.eye(2) + rng.uniform(-0.2, 0.2, [len(ink), 2, 2])
    bend = np.einsum("hi,naij,wj->nahw", smooth, rng.normal(0, 0.7, [len(ink), 2, 4, 4]), smooth)
    places = np.einsum("nab,bhw->nahw", mapping, offsets) + bend + (SIDE - 1) / 2
    bent = np.stack([ndimage.map_coordinates(image, place, order=1) for image, place in zip(ink, places)])
    variants.append(bent.clip(0, 1) ** np.exp(rng.uniform(-0.5, 0.5, [len(ink), 1, 1])))
  return np.concatenate(variants).astype(np.float32)
