"""Configuration of LLaVA-1.5 and LLaVA-NeXT: from a checkpoint's config.json, and the published sizes."""

from __future__ import annotations

import dataclasses

import transformers

from hawk_jax import checks
from models import hf_config
from models import vision_encoder
from models.decoder import DecoderConfig
from models.inputs import tiles
from models.llava.vision import VisionConfig

_HF_CONFIGS = {"llava": transformers.LlavaConfig, "llava_next": transformers.LlavaNextConfig}
# The first of each is what a config means that names none.
_TEXT_MODELS = ("llama", "mistral", "qwen2")
_VISION_MODELS = ("clip_vision_model",)


@dataclasses.dataclass(frozen=True)
class LlavaConfig:
  """A whole model.

  Attributes:
    text: the decoder.
    vision: the tower.
    image_token_id: placeholder of a visual token.
    projector_bias: whether the projector's layers have one.
    grid_pinpoints: (height, width) in pixels that LLaVA-NeXT may scale a picture to, multiples of a tile; none: LLaVA-1.5.
  """

  text: DecoderConfig
  vision: VisionConfig
  image_token_id: int = 32000
  projector_bias: bool = True
  grid_pinpoints: tuple[tuple[int, int], ...] = ()


def from_hf(content: dict) -> LlavaConfig:
  """Reads a config.json of model_type llava or llava_next.

  Args:
    content: the parsed JSON.

  Raises:
    ValueError: a value this port does not support.
  """
  if "mm_vision_tower" in content:
    raise ValueError(
      "config: mm_vision_tower: this is a checkpoint of the authors' own code, whose tensors have other names; take the one "
      "that was converted for transformers, whose name ends in -hf"
    )
  for part, supported in (("text_config", _TEXT_MODELS), ("vision_config", _VISION_MODELS)):
    model_type = (content.get(part) or {}).get("model_type", supported[0])
    hf_config.require(f"{part}.model_type", model_type, *supported)
  config = _HF_CONFIGS[content["model_type"]](**content)
  text, vision = config.text_config, config.vision_config
  hf_config.require("vision_config.hidden_act", vision.hidden_act, VisionConfig.hidden_act)
  hf_config.require("projector_hidden_act", config.projector_hidden_act, "gelu")
  for name in ("attention_bias", "mlp_bias"):
    hf_config.require(f"text_config.{name}", getattr(text, name, False), False)
  hf_config.require("vision_feature_select_strategy", config.vision_feature_select_strategy, "default", "full")
  hf_config.require_squares(vision)
  tower = hf_config.make(
    VisionConfig,
    "vision_config",
    vision,
    feature_layers=vision_encoder.feature_layers(config.vision_feature_layer, vision.num_hidden_layers),
    keep_class_token=config.vision_feature_select_strategy == "full",
  )
  hf_config.check_tiles("vision_config", tower)
  pinpoints = tiles.pinpoints(tower, getattr(config, "image_grid_pinpoints", ()))
  if pinpoints:
    hf_config.require("vision_feature_select_strategy", config.vision_feature_select_strategy, "default")
  return LlavaConfig(
    text=hf_config.decoder(
      text, attention_bias=text.model_type == "qwen2", tie_word_embeddings=bool(config.tie_word_embeddings)
    ),
    vision=tower,
    image_token_id=hf_config.token_id("image_token_index", config.image_token_index),
    projector_bias=checks.flag("config: multimodal_projector_bias", config.multimodal_projector_bias),
    grid_pinpoints=pinpoints,
  )


def _published(hidden, mlp, layers, heads) -> LlavaConfig:
  return LlavaConfig(
    text=DecoderConfig.sized(
      hidden,
      mlp,
      layers,
      heads,
      heads,
      vocab_size=32_064,
      max_position_embeddings=4096,
      rms_norm_eps=1e-5,
      rope_theta=10_000.0,
    ),
    vision=VisionConfig(num_hidden_layers=24, hidden_size=1024, intermediate_size=4096, num_attention_heads=16),
  )


# From the config.json of llava-hf/llava-1.5-*-hf.
PUBLISHED = {
  "llava-1.5-7b": _published(4096, 11_008, 32, 32),
  "llava-1.5-13b": _published(5120, 13_824, 40, 40),
}
