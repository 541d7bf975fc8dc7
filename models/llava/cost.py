"""Floating-point operations of LLaVA's vision tower and projector; matrix products only, a multiply-add counts as two."""

from __future__ import annotations

from models import vision_encoder
from models.llava.config import LlavaConfig


def vision_flops(config: LlavaConfig, tiles: int) -> float:
  """FLOPs of tiles through the tower, up to the last hidden state that is used, and through the projector."""
  return tiles * vision_encoder.flops(config.vision, config.vision.side**2 + 1, config.text.hidden_size)
