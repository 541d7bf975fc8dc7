"""Floating-point operations of the vision tower of Qwen3-VL; matrix products only, a multiply-add counts as two."""

from __future__ import annotations

from models.qwen3_vl.vision import VisionConfig


def vision_flops(config: VisionConfig, grids) -> float:
  """FLOPs of pictures and videos.

  Args:
    config: of the tower.
    grids: for each picture or video, temporal slices, height and width in patches.
  """
  size = config.hidden_size
  weights = size * (4 * size + 2 * config.intermediate_size)
  merged = size * config.merge_unit
  mergers = 1 + len(config.deepstack_visual_indexes)
  total = 0
  for frames, height, width in grids:
    patches = frames * height * width
    total += config.depth * 2 * patches * weights + 2 * patches * config.patch_dim * size
    total += config.depth * 4 * size * frames * (height * width) ** 2
    total += mergers * 2 * patches // config.merge_unit * merged * (merged + config.out_hidden_size)
  return total
