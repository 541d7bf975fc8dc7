"""Floating-point operations of the vision tower of Qwen2.5-VL; matrix products only, a multiply-add counts as two."""

from __future__ import annotations

from models.qwen2_5_vl.vision import VisionConfig


def vision_flops(config: VisionConfig, grids) -> float:
  """FLOPs of pictures and videos.

  Args:
    config: of the tower.
    grids: for each picture or video, temporal slices, height and width in patches.
  """
  size, window = config.hidden_size, config.window_side * config.spatial_merge_size
  weights = size * (4 * size + 3 * config.intermediate_size)
  merged = size * config.merge_unit
  full = sum(block < config.depth for block in config.fullatt_block_indexes)
  total = 0
  for frames, height, width in grids:
    patches = frames * height * width
    squares = frames * sum(
      min(window, height - top) ** 2 * min(window, width - left) ** 2
      for top in range(0, height, window)
      for left in range(0, width, window)
    )
    total += config.depth * 2 * patches * weights + 2 * patches * config.patch_dim * size
    total += 4 * size * ((config.depth - full) * squares + full * frames * (height * width) ** 2)
    total += 2 * patches // config.merge_unit * merged * (merged + config.out_hidden_size)
  return total
