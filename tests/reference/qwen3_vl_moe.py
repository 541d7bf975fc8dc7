"""Tiny Qwen3-VL checkpoints with experts, for parity tests; prompts, pictures and the tower are those of `qwen3_vl`."""

from __future__ import annotations

import json
import pathlib
import re

import numpy as np

from tests.reference import qwen3_vl
from tests.reference import tiny
from tests.reference.qwen3_vl import BATCH
from tests.reference.qwen3_vl import batch
from tests.reference.qwen3_vl import case
from tests.reference.qwen3_vl import feature_rows
from tests.reference.qwen3_vl import IM_END
from tests.reference.qwen3_vl import IMAGE
from tests.reference.qwen3_vl import logit_rows
from tests.reference.qwen3_vl import NEW_TOKENS
from tests.reference.qwen3_vl import PATCH
from tests.reference.qwen3_vl import PROMPTS
from tests.reference.qwen3_vl import VIDEO
from tests.reference.qwen3_vl import VISION_END

__all__ = [
  "BATCH", "IMAGE", "IM_END", "NEW_TOKENS", "PATCH", "PROMPTS", "VIDEO", "VISION_END", "batch", "case", "feature_rows",
  "logit_rows",
]  # fmt: skip
GOLDENS = pathlib.Path(__file__).with_name("qwen3_vl_moe.safetensors")
_EXPERT_GAIN = 1.5


def _config(dense: str, **experts) -> dict:
  """A config of `qwen3_vl` with experts in place of the decoder's MLPs."""
  config = json.loads(json.dumps(qwen3_vl.CONFIGS[dense]))
  config |= {"architectures": ["Qwen3VLMoeForConditionalGeneration"], "model_type": "qwen3_vl_moe"}
  config["text_config"] |= {"model_type": "qwen3_vl_moe_text", "decoder_sparse_step": 1, "mlp_only_layers": [], **experts}
  config["vision_config"] |= {"model_type": "qwen3_vl_moe_vision"}
  return config


CONFIGS = {
  "untied": _config("gqa", num_experts=8, num_experts_per_tok=2, moe_intermediate_size=40),
  "tied": _config("tied", num_experts=6, num_experts_per_tok=3, moe_intermediate_size=24),
}
PARITY_CASES = dict.fromkeys(CONFIGS, BATCH)


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint, as the hub lays it out."""
  text = config["text_config"]
  hidden, count, width = (text[name] for name in ("hidden_size", "num_experts", "moe_intermediate_size"))
  dense = re.compile(r"model\.language_model\..*\.mlp\.")
  out = {name: shape for name, shape in qwen3_vl.shapes(config).items() if not dense.match(name)}
  for number in range(text["num_hidden_layers"]):
    layer = f"model.language_model.layers.{number}.mlp"
    out |= tiny.linear(f"{layer}.gate", hidden, count, False)
    out[f"{layer}.experts.gate_up_proj"] = (count, hidden, 2 * width)
    out[f"{layer}.experts.down_proj"] = (count, width, hidden)
  return out


def weights(config: dict) -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name."""
  found = tiny.random_tensors(shapes(config))
  for name, value in found.items():
    if ".experts." in name:
      value *= _EXPERT_GAIN / np.sqrt(value.shape[1])
  return found


def state_dict(config: dict) -> dict[str, np.ndarray]:
  """The same, as transformers' torch model holds them."""
  turn = lambda name, value: np.ascontiguousarray(value.transpose(0, 2, 1)) if ".experts." in name else value
  return {name: turn(name, value) for name, value in weights(config).items()}


def single(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The same, with a tensor for every matrix of every expert, as other families store them."""
  out = {}
  for name, value in tensors.items():
    prefix, found, part = name.rpartition(".experts.")
    if not found:
      out[name] = value
      continue
    parts = {"down_proj": value} if part == "down_proj" else dict(zip(("gate_proj", "up_proj"), np.split(value, 2, axis=2)))
    for kind, kernels in parts.items():
      for number, kernel in enumerate(kernels):
        out[f"{prefix}.experts.{number}.{kind}.weight"] = np.ascontiguousarray(kernel.T)
  return out


def write_checkpoint(directory, config_name: str, *, hub_style: bool = False) -> None:
  """Writes config.json and model.safetensors.

  Args:
    directory: an existing folder.
    config_name: of `CONFIGS`.
    hub_style: the hub's keys, and a tensor for every matrix of every expert.
  """
  config = CONFIGS[config_name]
  tensors = weights(config)
  tiny.write(directory, qwen3_vl.as_published(config) if hub_style else config, single(tensors) if hub_style else tensors)


def hub_config(hidden, mlp, layers, heads, width) -> dict:
  """config.json of a published size."""
  config = qwen3_vl.hub_config(hidden, mlp, layers, heads, False, 27, 1152, 4304, [8, 16, 24])
  text = dict(model_type="qwen3_vl_moe_text", num_key_value_heads=4, decoder_sparse_step=1, mlp_only_layers=[])
  text |= dict(moe_intermediate_size=width, norm_topk_prob=True, num_experts=128, num_experts_per_tok=8)
  parts = dict(
    text_config={**config["text_config"], **text}, vision_config={**config["vision_config"], "model_type": "qwen3_vl_moe"}
  )
  return {**config, "model_type": "qwen3_vl_moe", **parts}


PUBLISHED = {
  "qwen3-vl-30b-a3b": hub_config(2048, 6144, 48, 32, 768),
  "qwen3-vl-235b-a22b": hub_config(4096, 12_288, 94, 64, 1536),
}
