"""The config.json of published checkpoints, as the hub has them, without the keys that nothing here reads."""

from __future__ import annotations

import pathlib

from tests.reference import llava_onevision
from tests.reference import qwen3_vl
from tests.reference import qwen3_vl_moe

GOLDENS = pathlib.Path(__file__).with_suffix(".json")


def _internvl(text, six_billion=False, image_token_id=151_667) -> dict:
  shapes = dict(hidden_size=3200, num_hidden_layers=45, num_attention_heads=25, intermediate_size=12_800)
  small = dict(hidden_size=1024, num_hidden_layers=24, num_attention_heads=16, intermediate_size=4096)
  return {
    "architectures": ["InternVLForConditionalGeneration"],
    "model_type": "internvl",
    "downsample_ratio": 0.5,
    "image_seq_length": 256,
    "image_token_id": image_token_id,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "default",
    "text_config": {"hidden_act": "silu", "eos_token_id": 151_645, "rms_norm_eps": 1e-6, "rope_theta": 1e6, **text},
    "vision_config": {
      "model_type": "internvl_vision",
      "hidden_act": "gelu",
      "image_size": [448, 448],
      "patch_size": [14, 14],
      "num_channels": 3,
      "layer_norm_eps": 1e-6,
      "layer_scale_init_value": 0.1,
      "attention_bias": not six_billion,
      "norm_type": "rms_norm" if six_billion else "layer_norm",
      "use_absolute_position_embeddings": True,
      "use_mask_token": False,
      "use_mean_pooling": True,
      "use_qk_norm": six_billion,
      **(shapes if six_billion else small),
    },
  }


def _internvl3(hidden, mlp, layers, heads, kv_heads, six_billion=False) -> dict:
  text = dict(
    model_type="qwen2",
    vocab_size=151_674,
    hidden_size=hidden,
    intermediate_size=mlp,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    num_key_value_heads=kv_heads,
    max_position_embeddings=32_768,
    rope_scaling={"factor": 2.0, "rope_type": "dynamic", "type": "dynamic"},
    sliding_window=None,
    use_sliding_window=False,
  )
  return _internvl(text, six_billion)


def _internvl3_5(hidden, mlp, layers, heads, six_billion=False) -> dict:
  text = dict(
    model_type="qwen3",
    vocab_size=151_936,
    hidden_size=hidden,
    intermediate_size=mlp,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    num_key_value_heads=8,
    head_dim=128,
    attention_bias=False,
    max_position_embeddings=40_960,
    rope_scaling=None,
    sliding_window=None,
    use_sliding_window=False,
    tie_word_embeddings=False,
  )
  return _internvl(text, six_billion, 151_671)


CONFIGS = {
  "internvl3-1b": _internvl3(896, 4864, 24, 14, 2),
  "internvl3-2b": _internvl3(1536, 8960, 28, 12, 2),
  "internvl3-8b": _internvl3(3584, 18_944, 28, 28, 4),
  "internvl3-14b": _internvl3(5120, 13_824, 48, 40, 8),
  "internvl3-38b": _internvl3(5120, 27_648, 64, 40, 8, six_billion=True),
  "internvl3-78b": _internvl3(8192, 29_568, 80, 64, 8, six_billion=True),
  "internvl3.5-1b": _internvl3_5(1024, 3072, 28, 16),
  "internvl3.5-2b": _internvl3_5(2048, 6144, 28, 16),
  "internvl3.5-4b": _internvl3_5(2560, 9728, 36, 32),
  "internvl3.5-8b": _internvl3_5(4096, 12_288, 36, 32),
  "internvl3.5-14b": _internvl3_5(5120, 17_408, 40, 40),
  "internvl3.5-38b": _internvl3_5(5120, 25_600, 64, 64, six_billion=True),
  **llava_onevision.PUBLISHED,
  **qwen3_vl.PUBLISHED,
  **qwen3_vl_moe.PUBLISHED,
}
