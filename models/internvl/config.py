"""Configuration of InternVL3 and InternVL3.5: from a checkpoint's config.json, and the published sizes."""

from __future__ import annotations

import dataclasses

from transformers import InternVLConfig as HFConfig

from hawk_jax import checks
from models import hf_config
from models.decoder import DecoderConfig
from models.internvl.vision import VisionConfig

# A config that names none means the first.
_TEXT_MODELS = ("qwen2", "qwen3")


@dataclasses.dataclass(frozen=True)
class InternVLConfig:
  """A whole model.

  Attributes:
    text: the decoder.
    vision: the tower.
    image_token_id: placeholder of a visual token, <IMG_CONTEXT>; <img> and </img> are the two ids before it.
    eos_token_ids: <|im_end|> and others, which end a message or an answer.
  """

  text: DecoderConfig
  vision: VisionConfig
  image_token_id: int = 151_667
  eos_token_ids: tuple[int, ...] = (151_645,)

  @property
  def vision_start_token_id(self) -> int:
    """<img>, which precedes a picture or frame."""
    return self.image_token_id - 2

  @property
  def vision_end_token_id(self) -> int:
    """</img>, which follows it."""
    return self.image_token_id - 1


def from_hf(content: dict) -> InternVLConfig:
  """Reads a config.json of model_type internvl.

  Args:
    content: the parsed JSON.

  Raises:
    ValueError: a value this port does not support.
  """
  kind = (content.get("text_config") or {}).get("model_type", _TEXT_MODELS[0])
  hf_config.require("text_config.model_type", kind, *_TEXT_MODELS)
  config = HFConfig(**content)
  text, vision = config.text_config, config.vision_config
  if kind == "qwen3":
    hf_config.require("text_config.attention_bias", text.attention_bias, False)
  hf_config.require("vision_config.hidden_act", vision.hidden_act, "gelu")
  hf_config.require("projector_hidden_act", config.projector_hidden_act, "gelu")
  hf_config.require("vision_config.norm_type", vision.norm_type, "layer_norm", "rms_norm")
  hf_config.require("vision_config.use_mask_token", vision.use_mask_token, False)
  hf_config.require("vision_config.use_absolute_position_embeddings", vision.use_absolute_position_embeddings, True)
  hf_config.require("vision_feature_select_strategy", config.vision_feature_select_strategy, "default")
  hf_config.require("downsample_ratio", config.downsample_ratio, 0.5)
  tower = hf_config.make(
    VisionConfig,
    "vision_config",
    vision,
    image_size=_side("image_size", vision.image_size),
    patch_size=_side("patch_size", vision.patch_size),
  )
  hf_config.check_tiles("vision_config", tower)
  return InternVLConfig(
    # The top level's tie_word_embeddings has another default than the checkpoints, which lack it, mean.
    text=hf_config.decoder(
      text,
      attention_bias=kind == "qwen2",
      tie_word_embeddings=bool(text.tie_word_embeddings),
      qk_norm=kind == "qwen3",
    ),
    vision=dataclasses.replace(tower, feature_layer=_feature_layer(config.vision_feature_layer, vision.num_hidden_layers)),
    # The two ids before it are <img> and </img>.
    image_token_id=hf_config.token_id("image_token_id", config.image_token_id, 2),
    eos_token_ids=hf_config.token_ids("eos_token_id", text.eos_token_id) or InternVLConfig.eos_token_ids,
  )


def _side(name, sides) -> int:
  if not isinstance(sides, (list, tuple)) or len(sides) != 2 or sides[0] != sides[1]:
    raise ValueError(f"config: vision_config.{name} is {checks.show(sides)}, must be square: [side, side]")
  return sides[0]


def _feature_layer(layer, depth) -> int:
  if type(layer) is not int or not -depth - 1 <= layer <= depth:
    raise ValueError(f"config: vision_feature_layer is {layer}, must be one hidden state from {-depth - 1} to {depth}")
  return layer


_VISION_300M = VisionConfig(num_hidden_layers=24, hidden_size=1024, intermediate_size=4096, num_attention_heads=16)
_VISION_6B = VisionConfig(
  num_hidden_layers=45,
  hidden_size=3200,
  intermediate_size=12_800,
  num_attention_heads=25,
  attention_bias=False,
  use_qk_norm=True,
  norm_type="rms_norm",
)


def _published(*sizes, vision=_VISION_300M, **text) -> InternVLConfig:
  """InternVL3, on Qwen2.5."""
  values = dict(vocab_size=151_674, max_position_embeddings=32_768, attention_bias=True)
  return InternVLConfig(text=DecoderConfig.sized(*sizes, **values | text), vision=vision)


def _published_3_5(hidden, mlp, layers, heads, vision=_VISION_300M) -> InternVLConfig:
  """InternVL3.5, on Qwen3."""
  values = dict(head_dim=128, vocab_size=151_936, max_position_embeddings=40_960, attention_bias=False, qk_norm=True)
  config = _published(hidden, mlp, layers, heads, 8, vision=vision, **values)
  return dataclasses.replace(config, image_token_id=151_671)


# From the config.json of OpenGVLab/InternVL3-*-hf and OpenGVLab/InternVL3_5-*-HF.
PUBLISHED = {
  "internvl3-1b": _published(896, 4864, 24, 14, 2),
  "internvl3-2b": _published(1536, 8960, 28, 12, 2),
  "internvl3-8b": _published(3584, 18_944, 28, 28, 4),
  "internvl3-14b": _published(5120, 13_824, 48, 40, 8),
  "internvl3-38b": _published(5120, 27_648, 64, 40, 8, vision=_VISION_6B),
  "internvl3-78b": _published(8192, 29_568, 80, 64, 8, vision=_VISION_6B),
  "internvl3.5-1b": _published_3_5(1024, 3072, 28, 16),
  "internvl3.5-2b": _published_3_5(2048, 6144, 28, 16),
  "internvl3.5-4b": _published_3_5(2560, 9728, 36, 32),
  "internvl3.5-8b": _published_3_5(4096, 12_288, 36, 32),
  "internvl3.5-14b": _published_3_5(5120, 17_408, 40, 40),
  "internvl3.5-38b": _published_3_5(5120, 25_600, 64, 64, _VISION_6B),
}
