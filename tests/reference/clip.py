"""Tiny CLIP checkpoints whose vision tower is the tiny LLaVA's, and texts, for tests of the selector `cdpruner`.

`make_clip_goldens` (needs torch) runs transformers' `CLIPModel` on them and writes `clip.safetensors`; the tests run
ours.
"""

from __future__ import annotations

import pathlib

import numpy as np
import transformers

from tests.reference import llava
from tests.reference import tiny

GOLDENS = pathlib.Path(__file__).with_name("clip.safetensors")
LLAVA = "llama"
CASES = ("two", "text_only", "one", "adjacent")
# END ends a text. Below it are letters, above it ids that only follow the end.
VOCABULARY, END, SLOTS = 560, 550, 77
LENGTHS = (9, 77, 1, 30)

_VISION = llava.CONFIGS[LLAVA]["vision_config"]
# Blocks as large as the vision tower's, with other heads.
_TEXT = dict(
  hidden_size=_VISION["hidden_size"],
  intermediate_size=_VISION["intermediate_size"],
  num_hidden_layers=_VISION["num_hidden_layers"],
  num_attention_heads=4,
  hidden_act="quick_gelu",
  vocab_size=VOCABULARY,
  max_position_embeddings=SLOTS,
  layer_norm_eps=1e-5,
  bos_token_id=END - 1,
)
_JOINT = 24


def _config(**text):
  """config.json as transformers writes it."""
  return {
    "architectures": ["CLIPModel"],
    "model_type": "clip",
    "projection_dim": _JOINT,
    "text_config": {"model_type": "clip_text_model", **_TEXT, **text},
    "vision_config": _VISION,
  }


# The end token named, and as older configs name it.
CONFIGS = {"named": _config(eos_token_id=END), "legacy": _config(eos_token_id=2)}


def tokens(config_name: str) -> np.ndarray:
  """[4, S] int32 texts, one a length. Noise follows their end: below END where the end is the highest id, else any."""
  rng = np.random.default_rng(5)
  rows = rng.integers(0, END if config_name == "legacy" else VOCABULARY, [len(LENGTHS), SLOTS])
  for row, length in zip(rows, LENGTHS):
    row[: length - 1] %= END
    row[length - 1] = END
  return rows.astype(np.int32)


def weights() -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name; those of the vision tower are the LLaVA's."""
  tower = {
    name.removeprefix("model.vision_tower."): value
    for name, value in llava.weights(llava.CONFIGS[LLAVA]).items()
    if name.startswith("model.vision_tower.")
  }
  size = _TEXT["hidden_size"]
  shapes = {
    "text_model.embeddings.token_embedding.weight": (VOCABULARY, size),
    "text_model.embeddings.position_embedding.weight": (SLOTS, size),
    "text_model.final_layer_norm.weight": (size,),
    "text_model.final_layer_norm.bias": (size,),
    **{f"text_model.{name}": value.shape for name, value in tower.items() if name.startswith("encoder.")},
    **tiny.linear("text_projection", size, _JOINT, bias=False),
    **tiny.linear("visual_projection", size, _JOINT, bias=False),
  }
  vision = {f"vision_model.{name}": value for name, value in tower.items()}
  return tiny.random_tensors(shapes) | vision | {"logit_scale": np.array(2.6, np.float32)}


def write_checkpoint(directory, config_name: str) -> None:
  """Writes config.json, model.safetensors and a tokenizer that spells letter by letter."""
  tiny.write(directory, CONFIGS[config_name], weights())
  letters = [chr(code) for code in range(97, 123)]
  names = ["<|startoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
  vocabulary = {name: number for number, name in enumerate(names)} | {"<|endoftext|>": END}
  transformers.CLIPTokenizer(vocab=vocabulary).save_pretrained(directory)


def fingerprint(config_name: str) -> np.ndarray:
  """Means of absolute values of all weights, of the texts, and of the pictures: do the goldens belong to these?"""
  return tiny.magnitudes([*weights().values(), tokens(config_name), llava.batch(CASES)["pixel_values"]])
