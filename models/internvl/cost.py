"""Floating-point operations of InternVL's vision tower and projector; matrix products only, a multiply-add counts as two."""

from __future__ import annotations

from models.internvl.config import InternVLConfig
from models.internvl.vision import MERGE


def vision_flops(config: InternVLConfig, tiles: int) -> float:
  """FLOPs of tiles through the tower, up to the hidden state that is used, and through the projector."""
  vision, size = config.vision, config.vision.hidden_size
  tokens, layers = vision.patches + 1, vision.feature_layer % (vision.num_hidden_layers + 1)
  block = 2 * tokens * size * (4 * size + 2 * vision.intermediate_size) + 4 * tokens**2 * size
  hidden = config.text.hidden_size
  projector = 2 * vision.tokens * hidden * (MERGE**2 * size + hidden)
  return tiles * (layers * block + 2 * vision.patches * vision.num_channels * vision.patch_size**2 * size + projector)
