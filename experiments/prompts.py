"""Prompts of random words and pictures of noise, for measurements."""

from __future__ import annotations

import numpy as np


def make_batch(model, sizes, text_tokens: int, rng: np.random.Generator | None) -> dict[str, np.ndarray]:
  """A processor's arrays: for each (height, width) a prompt with a picture of noise before random words.

  Only for models whose pictures keep their size (Qwen2.5-VL) or become one tile (LLaVA-1.5).

  Args:
    model: a port.
    sizes: of the pictures in pixels.
    text_tokens: of each prompt.
    rng: None: the words are all alike and the pictures black, where only shapes count.
  """
  config = model.config
  words = lambda count: [5] * count if rng is None else rng.integers(5, min(config.text.vocab_size, 8000), count).tolist()
  pixels = lambda *shape: np.zeros(shape, np.float32) if rng is None else rng.standard_normal(shape, np.float32)
  if hasattr(config, "vision_end_token_id"):
    unit = config.vision.patch_size * config.vision.spatial_merge_size
    merge = config.vision.spatial_merge_size
    grids = np.asarray([[1, merge * (height // unit), merge * (width // unit)] for height, width in sizes])
    arrays = {"pixel_values": pixels(int(grids.prod(axis=1).sum()), config.vision.patch_dim), "image_grid_thw": grids}
    counts = grids.prod(axis=1) // config.vision.merge_unit
    around = ([config.vision_start_token_id], [config.vision_end_token_id])
  else:
    arrays = {"pixel_values": pixels(len(sizes), *config.vision.tile_shape)}
    counts, around = [config.vision.tokens] * len(sizes), ([], [])
  rows = [words(text_tokens // 2 - 1) + around[0] + [config.image_token_id] * int(count) + around[1] +
          words(text_tokens - text_tokens // 2 - 1) for count in counts]
  length = max(map(len, rows))
  return {"input_ids": np.asarray([row + [0] * (length - len(row)) for row in rows]),
          "attention_mask": np.asarray([[1] * len(row) + [0] * (length - len(row)) for row in rows]), **arrays}
