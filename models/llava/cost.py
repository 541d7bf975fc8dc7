"""Floating-point operations of LLaVA's vision tower and projector; matrix products only, a multiply-add counts as two."""

from __future__ import annotations

from models.llava.config import LlavaConfig


def vision_flops(config: LlavaConfig, tiles: int) -> float:
  """FLOPs of tiles through the tower, up to the last hidden state that is used, and through the projector."""
  vision, size = config.vision, config.vision.hidden_size
  tokens, layers = vision.side**2 + 1, max(vision.feature_layers)
  block = 2 * tokens * size * (4 * size + 2 * vision.intermediate_size) + 4 * tokens**2 * size
  hidden = config.text.hidden_size
  projector = 2 * vision.tokens * hidden * (size * len(vision.feature_layers) + hidden)
  return tiles * (layers * block + 2 * (tokens - 1) * vision.num_channels * vision.patch_size**2 * size + projector)
