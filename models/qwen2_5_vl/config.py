"""Configuration of Qwen2.5-VL: from a checkpoint's config.json, and the published sizes."""

from __future__ import annotations

import dataclasses

from transformers import Qwen2_5_VLConfig as HFConfig

from models import hf_config
from models.decoder import DecoderConfig
from models.qwen2_5_vl.vision import VisionConfig
from models.qwen_vl import config as qwen_vl_config
from models.qwen_vl.config import QwenVLConfig


@dataclasses.dataclass(frozen=True)
class Qwen2_5_VLConfig(QwenVLConfig):
  """A whole model."""

  vision: VisionConfig


def from_hf(content: dict) -> Qwen2_5_VLConfig:
  """Reads a config.json, flat (the hub's) or nested (transformers 5's).

  Args:
    content: the parsed JSON.

  Raises:
    ValueError: a value this port does not support.
  """
  content = dict(content)
  vision = dict(content.get("vision_config") or {})
  if "in_chans" in vision:
    vision.setdefault("in_channels", vision.pop("in_chans"))
  config = HFConfig(**{**content, "vision_config": vision})
  text, vision = config.text_config, config.vision_config
  hf_config.require("vision_config.hidden_act", vision.hidden_act, "silu")
  decoder = hf_config.decoder(
    text,
    attention_bias=True,
    tie_word_embeddings=bool(config.tie_word_embeddings),
    mrope_section=qwen_vl_config.mrope_section(text, (16, 24, 24)),
  )
  tower = hf_config.make(VisionConfig, "vision_config", vision)
  qwen_vl_config.check_tower(tower, decoder.hidden_size)
  side = tower.patch_size * tower.spatial_merge_size
  if tower.window_size < side:
    raise ValueError(f"config: vision_config.window_size is {tower.window_size}, must be at least {side}, one visual token")
  hf_config.bound("vision_config's window", tower.window_side**2 * tower.merge_unit * tower.patch_dim)
  return Qwen2_5_VLConfig(text=decoder, vision=tower, **qwen_vl_config.special_tokens(config, content))


def _published(hidden, *sizes, vocab=152_064, vision_mlp=3420, tied=False) -> Qwen2_5_VLConfig:
  return Qwen2_5_VLConfig(
    text=DecoderConfig.sized(
      hidden,
      *sizes,
      vocab_size=vocab,
      max_position_embeddings=128_000,
      mrope_section=(16, 24, 24),
      attention_bias=True,
      tie_word_embeddings=tied,
    ),
    vision=VisionConfig(depth=32, hidden_size=1280, intermediate_size=vision_mlp, num_heads=16, out_hidden_size=hidden),
  )


# From the config.json of Qwen/Qwen2.5-VL-*-Instruct.
PUBLISHED = {
  "qwen2.5-vl-3b": _published(2048, 11_008, 36, 16, 2, vocab=151_936, tied=True),
  "qwen2.5-vl-7b": _published(3584, 18_944, 28, 28, 4),
  "qwen2.5-vl-32b": _published(5120, 27_648, 64, 40, 8, vision_mlp=3456),
  "qwen2.5-vl-72b": _published(8192, 29_568, 80, 64, 8, vision_mlp=3456),
}
