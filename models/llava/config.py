"""Configuration of LLaVA-1.5 and LLaVA-NeXT: from a checkpoint's config.json, and the published sizes."""

from __future__ import annotations

import dataclasses
import math

import transformers

from hawk_jax import checks
from models import hf_config
from models.decoder import DecoderConfig
from models.llava.vision import EncoderConfig
from models.llava.vision import VisionConfig

_HF_CONFIGS = {"llava": transformers.LlavaConfig, "llava_next": transformers.LlavaNextConfig}
# A config that names none means the first of each.
_TEXT_MODELS = ("llama", "mistral", "qwen2")
_VISION_MODELS = ("clip_vision_model",)
_MOST_TILES = 100  # of a grid pinpoint


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
  for part, supported in (("text_config", _TEXT_MODELS), ("vision_config", _VISION_MODELS)):
    model_type = (content.get(part) or {}).get("model_type", supported[0])
    hf_config.require(f"{part}.model_type", model_type, *supported)
  config = _HF_CONFIGS[content["model_type"]](**content)
  text, vision = config.text_config, config.vision_config
  hf_config.require("vision_config.hidden_act", vision.hidden_act, "quick_gelu")
  hf_config.require("projector_hidden_act", config.projector_hidden_act, "gelu")
  for name in ("attention_bias", "mlp_bias"):
    hf_config.require(f"text_config.{name}", getattr(text, name, False), False)
  for name in ("image_size", "patch_size"):
    if not isinstance(getattr(vision, name), int):
      raise ValueError(f"config: vision_config.{name} is {getattr(vision, name)!r}, must be one number: tiles are square")
  hf_config.require("vision_feature_select_strategy", config.vision_feature_select_strategy, "default", "full")
  decoder = hf_config.decoder(
    text, attention_bias=text.model_type == "qwen2", tie_word_embeddings=bool(config.tie_word_embeddings)
  )
  tower = hf_config.make(
    VisionConfig,
    "vision_config",
    vision,
    feature_layers=_feature_layers(config.vision_feature_layer, vision.num_hidden_layers),
    keep_class_token=config.vision_feature_select_strategy == "full",
  )
  check_encoder("vision_config", tower)
  check_tiles(tower)
  pinpoints = _pinpoints(getattr(config, "image_grid_pinpoints", ()), tower.image_size)
  if pinpoints:
    hf_config.require("vision_feature_select_strategy", config.vision_feature_select_strategy, "default")
  return LlavaConfig(
    text=decoder,
    vision=tower,
    image_token_id=hf_config.token_id("image_token_index", config.image_token_index),
    projector_bias=checks.flag("config: multimodal_projector_bias", config.multimodal_projector_bias),
    grid_pinpoints=pinpoints,
  )


def check_encoder(part: str, config: EncoderConfig) -> None:
  """Refuses a tower whose heads do not divide its width.

  Raises:
    ValueError: for such a tower.
  """
  hf_config.divides(part, "hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads)


def check_tiles(config: VisionConfig) -> None:
  """Refuses tiles without patches, and tiles of too many.

  Raises:
    ValueError: for such tiles.
  """
  if config.patch_size > config.image_size:
    raise ValueError(
      f"config: vision_config.patch_size is {config.patch_size}, must be at most image_size, {config.image_size}"
    )
  hf_config.bound("vision_config's tile", math.prod(config.tile_shape))
  hf_config.bound("vision_config's table of positions", (config.side**2 + 1) * config.hidden_size)


def _pinpoints(given, tile: int) -> tuple[tuple[int, int], ...]:
  """(height, width) of each grid pinpoint."""
  allowed = f"multiples of the tile's {tile} pixels, in pairs [height, width] of at most {_MOST_TILES} tiles"
  fits = lambda side: type(side) is int and side > 0 and side % tile == 0
  for pair in given if isinstance(given, (list, tuple)) else [given]:
    if (
      not isinstance(pair, (list, tuple))
      or len(pair) != 2
      or not all(map(fits, pair))
      or math.prod(pair) > _MOST_TILES * tile**2
    ):
      raise ValueError(f"config: image_grid_pinpoints are {checks.show(given)}, must be {allowed}")
  return tuple((height, width) for height, width in given)


def _feature_layers(layers: int | list[int], depth: int) -> tuple[int, ...]:
  """Hidden states by index, 0 to depth; negative ones count from the last."""
  layers = [layers] if isinstance(layers, int) else layers
  if not layers or not all(type(layer) is int and -depth - 1 <= layer <= depth for layer in layers):
    raise ValueError(f"config: vision_feature_layer is {layers}, the vision tower has hidden states {-depth - 1} to {depth}")
  return tuple(layer % (depth + 1) for layer in layers)


def _published(hidden, mlp, layers, heads) -> LlavaConfig:
  return LlavaConfig(
    text=DecoderConfig(
      vocab_size=32_064,
      hidden_size=hidden,
      intermediate_size=mlp,
      num_hidden_layers=layers,
      num_attention_heads=heads,
      num_key_value_heads=heads,
      head_dim=hidden // heads,
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
