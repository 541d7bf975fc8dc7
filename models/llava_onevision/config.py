"""Configuration of LLaVA-OneVision: from a checkpoint's config.json, and the published sizes."""

from __future__ import annotations

import dataclasses
import re

from transformers import LlavaOnevisionConfig as HFConfig

from hawk_jax import checks
from models import hf_config
from models import vision_encoder
from models.decoder import DecoderConfig
from models.inputs import tiles
from models.llava_onevision.vision import VisionConfig


@dataclasses.dataclass(frozen=True)
class LlavaOnevisionConfig:
  """A whole model.

  Attributes:
    text: the decoder.
    vision: the tower.
    image_token_id: placeholder of a picture's visual tokens.
    video_token_id: placeholder of a video's visual tokens.
    eos_token_ids: <|im_end|> and others, which end a message or an answer.
    projector_bias: whether the projector's layers have one.
    grid_pinpoints: (height, width) in pixels that a picture may be scaled to, multiples of a tile.
    max_tiles: tiled views with the patches of more tiles are scaled down to about so many.
  """

  text: DecoderConfig
  vision: VisionConfig
  image_token_id: int = 151_646
  video_token_id: int = 151_647
  eos_token_ids: tuple[int, ...] = (151_645,)
  projector_bias: bool = True
  grid_pinpoints: tuple[tuple[int, int], ...] = tuple(
    (384 * rows, 384 * columns) for rows in range(1, 7) for columns in range(1, 7)
  )
  max_tiles: int = 9


def from_hf(content: dict) -> LlavaOnevisionConfig:
  """Reads a config.json of model_type llava_onevision.

  Args:
    content: the parsed JSON.

  Raises:
    ValueError: a value this port does not support.
  """
  for part, supported in (("text_config", "qwen2"), ("vision_config", "siglip_vision_model")):
    hf_config.require(f"{part}.model_type", (content.get(part) or {}).get("model_type", supported), supported)
  config = HFConfig(**content)
  text, vision = config.text_config, config.vision_config
  hf_config.require("vision_config.hidden_act", vision.hidden_act, VisionConfig.hidden_act)
  hf_config.require("projector_hidden_act", config.projector_hidden_act, "gelu")
  hf_config.require("vision_feature_select_strategy", config.vision_feature_select_strategy, "full")
  hf_config.require_squares(vision)
  ratio = config.vision_aspect_ratio
  if not isinstance(ratio, str) or not (limit := re.fullmatch(r"anyres_max_([1-9]\d{0,2})", ratio)):
    raise ValueError(f"config: vision_aspect_ratio is {checks.show(ratio)}, must be like 'anyres_max_9'")
  tower = hf_config.make(
    VisionConfig,
    "vision_config",
    vision,
    feature_layers=vision_encoder.feature_layers(config.vision_feature_layer, vision.num_hidden_layers),
  )
  hf_config.check_tiles("vision_config", tower)
  hf_config.distinct(image_token_index=config.image_token_index, video_token_index=config.video_token_index)
  return LlavaOnevisionConfig(
    text=hf_config.decoder(text, attention_bias=True, tie_word_embeddings=bool(config.tie_word_embeddings)),
    vision=tower,
    image_token_id=hf_config.token_id("image_token_index", config.image_token_index),
    video_token_id=hf_config.token_id("video_token_index", config.video_token_index),
    eos_token_ids=hf_config.token_ids("eos_token_id", text.eos_token_id) or LlavaOnevisionConfig.eos_token_ids,
    projector_bias=checks.flag("config: multimodal_projector_bias", config.multimodal_projector_bias),
    grid_pinpoints=tiles.pinpoints(tower, config.image_grid_pinpoints),
    max_tiles=int(limit[1]),
  )


def _published(*sizes, vocab=152_128, tied=False) -> LlavaOnevisionConfig:
  return LlavaOnevisionConfig(
    text=DecoderConfig.sized(
      *sizes, vocab_size=vocab, max_position_embeddings=32_768, attention_bias=True, tie_word_embeddings=tied
    ),
    vision=VisionConfig(num_hidden_layers=26, hidden_size=1152, intermediate_size=4304, num_attention_heads=16),
  )


# From the config.json of llava-hf/llava-onevision-qwen2-*-ov-hf.
PUBLISHED = {
  "llava-onevision-0.5b": _published(896, 4864, 24, 14, 2, vocab=152_000, tied=True),
  "llava-onevision-7b": _published(3584, 18_944, 28, 28, 4),
  "llava-onevision-72b": _published(8192, 29_568, 80, 64, 8),
}
