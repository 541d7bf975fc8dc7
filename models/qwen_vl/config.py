"""Configuration that the Qwen-VL families share."""

from __future__ import annotations

import dataclasses
from typing import Any

from models.decoder import DecoderConfig


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """Shapes of a tower; names follow the checkpoints' config.json."""

  depth: int
  hidden_size: int
  intermediate_size: int
  num_heads: int
  out_hidden_size: int
  in_channels: int = 3
  patch_size: int = 14
  temporal_patch_size: int = 2
  spatial_merge_size: int = 2

  @property
  def patch_dim(self) -> int:
    """C, values per patch."""
    return self.in_channels * self.temporal_patch_size * self.patch_size**2

  @property
  def merge_unit(self) -> int:
    """U, patches per merged token."""
    return self.spatial_merge_size**2


@dataclasses.dataclass(frozen=True)
class QwenVLConfig:
  """A whole model.

  Attributes:
    text: the decoder.
    vision: the tower.
    image_token_id: placeholder of a picture's visual tokens.
    video_token_id: placeholder of a video's visual tokens.
    vision_start_token_id: precedes a picture or video.
    vision_end_token_id: follows it.
    eos_token_ids: <|im_end|> and others, which end a message or an answer.
  """

  text: DecoderConfig
  vision: VisionConfig
  image_token_id: int = 151655
  video_token_id: int = 151656
  vision_start_token_id: int = 151652
  vision_end_token_id: int = 151653
  eos_token_ids: tuple[int, ...] = (151645,)


def special_tokens(config, content: dict[str, Any]) -> dict[str, Any]:
  """The ids of a `QwenVLConfig`.

  Args:
    config: transformers' configuration of the whole model.
    content: the config.json that it was made from, nested or flat.
  """
  eos = getattr(config.text_config, "eos_token_id", None)
  eos = content.get("eos_token_id") if eos is None else eos
  return dict(
    image_token_id=config.image_token_id,
    video_token_id=config.video_token_id,
    vision_start_token_id=config.vision_start_token_id,
    vision_end_token_id=config.vision_end_token_id,
    eos_token_ids=() if eos is None else tuple(eos) if isinstance(eos, (list, tuple)) else (eos,),
  )
