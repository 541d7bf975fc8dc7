"""Configuration that the Qwen-VL families share."""

from __future__ import annotations

import dataclasses
from typing import Any

from hawk_jax import checks
from models import hf_config
from models.decoder import DecoderConfig

_TOKENS = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")


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

  Raises:
    ValueError: numbers that are no ids, or placeholders that share one.
  """
  eos = getattr(config.text_config, "eos_token_id", None)
  eos = content.get("eos_token_id") if eos is None else eos
  hf_config.distinct(image_token_id=config.image_token_id, video_token_id=config.video_token_id)
  return {
    **{name: hf_config.token_id(name, getattr(config, name)) for name in _TOKENS},
    "eos_token_ids": hf_config.token_ids("eos_token_id", eos),
  }


def mrope_section(text, default: tuple[int, ...]) -> tuple[int, ...]:
  """Frequencies of time, row and column in transformers' text config.

  Raises:
    ValueError: another number of axes.
  """
  section = text.rope_parameters.get("mrope_section", default)
  if not isinstance(section, (list, tuple)) or len(section) != 3:
    given = checks.show(section)
    raise ValueError(
      f"config: text_config.rope_parameters.mrope_section is {given}, must be three numbers: time, row, column"
    )
  return tuple(section)


def check_tower(tower: VisionConfig, hidden_size: int) -> None:
  """Refuses sizes of a tower that do not fit one another or the decoder.

  Args:
    tower: its configuration.
    hidden_size: of the decoder.

  Raises:
    ValueError: for such sizes.
  """
  hf_config.divides("vision_config", "hidden_size", tower.hidden_size, "num_heads", tower.num_heads)
  hf_config.divides("vision_config", "hidden_size / num_heads", tower.hidden_size // tower.num_heads, "rotary axes", 4)
  hf_config.require("vision_config.out_hidden_size", tower.out_hidden_size, hidden_size)
  hf_config.bound("vision_config's visual token", tower.merge_unit * tower.patch_dim)
