"""Configuration of Qwen3-VL: from a checkpoint's config.json, and the published sizes."""

from __future__ import annotations

import dataclasses
import math

from transformers import Qwen3VLConfig as HFConfig
from transformers import Qwen3VLMoeConfig as HFExpertsConfig

from hawk_jax import checks
from models import hf_config
from models.decoder import DecoderConfig
from models.experts import ExpertsConfig
from models.qwen3_vl.vision import VisionConfig
from models.qwen_vl import config as qwen_vl_config
from models.qwen_vl.config import QwenVLConfig

_SECTION = (24, 20, 20)


@dataclasses.dataclass(frozen=True)
class Qwen3VLConfig(QwenVLConfig):
  """A whole model."""

  vision: VisionConfig


def from_hf(content: dict) -> Qwen3VLConfig:
  """Reads a config.json, with the hub's keys (rope_theta, rope_scaling) or transformers 5's (rope_parameters).

  Args:
    content: the parsed JSON.

  Raises:
    ValueError: a value this port does not support.
  """
  given = content.get("text_config") or {}
  if "rope_theta" not in {**(given.get("rope_parameters") or {}), **given}:
    raise ValueError("config: text_config has no rope_theta, the checkpoints do not agree on one")
  sparse = content.get("model_type") == "qwen3_vl_moe"
  config = (HFExpertsConfig if sparse else HFConfig)(**content)
  text, vision = config.text_config, config.vision_config
  hf_config.require("vision_config.hidden_act", vision.hidden_act, "gelu_pytorch_tanh")
  hf_config.require("text_config.attention_bias", text.attention_bias, False)
  hf_config.require(
    "text_config.rope_parameters.mrope_interleaved", text.rope_parameters.get("mrope_interleaved", True), True
  )
  theta = (vision.rope_parameters or {}).get("rope_theta", 10_000.0)
  hf_config.require("vision_config.rope_parameters.rope_theta", theta, 10_000.0)
  layers = list(vision.deepstack_visual_indexes)
  if not all(type(layer) is int and 0 <= layer < vision.depth for layer in layers) or layers != sorted(set(layers)):
    raise ValueError(
      f"config: vision_config.deepstack_visual_indexes is {checks.show(layers)}, must be ascending layers of the tower's "
      f"{vision.depth}"
    )
  if len(layers) > text.num_hidden_layers:
    raise ValueError(
      f"config: vision_config.deepstack_visual_indexes has {len(layers)} levels, the decoder has only "
      f"{text.num_hidden_layers} layers"
    )
  checks.whole("config: vision_config.num_position_embeddings", vision.num_position_embeddings, 1, 2**20)
  if math.isqrt(vision.num_position_embeddings) ** 2 != vision.num_position_embeddings:
    raise ValueError(
      f"config: vision_config.num_position_embeddings is {vision.num_position_embeddings}, must be a square number"
    )
  decoder = hf_config.decoder(
    text,
    attention_bias=False,
    tie_word_embeddings=bool(config.tie_word_embeddings),
    mrope_section=qwen_vl_config.mrope_section(text, _SECTION),
    mrope_interleaved=True,
    qk_norm=True,
    experts=hf_config.experts(text) if sparse else None,
  )
  tower = hf_config.make(VisionConfig, "vision_config", vision)
  qwen_vl_config.check_tower(tower, decoder.hidden_size)
  hf_config.bound("vision_config's table of positions", tower.num_position_embeddings * tower.hidden_size)
  return Qwen3VLConfig(text=decoder, vision=tower, **qwen_vl_config.special_tokens(config, content))


def _published(
  hidden, mlp, layers, heads, *, large_tower=True, tied=False, kv_heads=8, experts: ExpertsConfig | None = None
) -> Qwen3VLConfig:
  return Qwen3VLConfig(
    text=DecoderConfig.sized(
      hidden,
      mlp,
      layers,
      heads,
      kv_heads,
      head_dim=128,
      vocab_size=151_936,
      max_position_embeddings=262_144,
      rope_theta=5e6,
      mrope_section=_SECTION,
      mrope_interleaved=True,
      qk_norm=True,
      tie_word_embeddings=tied,
      experts=experts,
    ),
    vision=VisionConfig(
      depth=27 if large_tower else 24,
      hidden_size=1152 if large_tower else 1024,
      intermediate_size=4304 if large_tower else 4096,
      num_heads=16,
      out_hidden_size=hidden,
      deepstack_visual_indexes=(8, 16, 24) if large_tower else (5, 11, 17),
    ),
  )


# From the config.json of Qwen/Qwen3-VL-*-Instruct.
PUBLISHED = {
  "qwen3-vl-2b": _published(2048, 6144, 28, 16, large_tower=False, tied=True),
  "qwen3-vl-4b": _published(2560, 9728, 36, 32, large_tower=False, tied=True),
  "qwen3-vl-8b": _published(4096, 12_288, 36, 32),
  "qwen3-vl-32b": _published(5120, 25_600, 64, 64),
}
PUBLISHED_EXPERTS = {
  "qwen3-vl-30b-a3b": _published(2048, 6144, 48, 32, kv_heads=4, experts=ExpertsConfig(128, 8, 768)),
  "qwen3-vl-235b-a22b": _published(4096, 12_288, 94, 64, kv_heads=4, experts=ExpertsConfig(128, 8, 1536)),
}
