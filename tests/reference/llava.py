"""Tiny LLaVA-1.5 and LLaVA-NeXT checkpoints and prompts for parity tests, the same on every machine.

`make_goldens` (needs torch) runs transformers' models on them and writes `llava.safetensors`; the tests run ours.
"""

from __future__ import annotations

import pathlib
import zlib

import numpy as np

from tests.reference import tiny

feature_rows, logit_rows = tiny.feature_rows, tiny.logit_rows
GOLDENS = pathlib.Path(__file__).with_name("llava.safetensors")

BOS, IMAGE = 150, 151
VOCABULARY = 160
NEW_TOKENS = 16
TILE = 42


def _config(model_type, text_type, *, text, vision, layer=-2, strategy="default", tied=False):
  """config.json as transformers 5 writes it."""
  content = {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": model_type,
    "dtype": "float32",
    "image_token_index": IMAGE,
    "vision_feature_layer": layer,
    "vision_feature_select_strategy": strategy,
    "tie_word_embeddings": tied,
    "text_config": {
      "model_type": text_type,
      "vocab_size": VOCABULARY,
      "max_position_embeddings": 1024,
      "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
      "tie_word_embeddings": tied,
      **text,
    },
    "vision_config": {
      "model_type": "clip_vision_model",
      "hidden_act": "quick_gelu",
      "image_size": TILE,
      "patch_size": 7,
      "projection_dim": 24,
      **vision,
    },
  }
  if model_type == "llava_next":
    content["architectures"] = ["LlavaNextForConditionalGeneration"]
    content["image_grid_pinpoints"] = [
      [TILE, 2 * TILE],
      [2 * TILE, TILE],
      [2 * TILE, 2 * TILE],
      [3 * TILE, TILE],
      [TILE, 3 * TILE],
    ]
  return content


# Query heads to key/value heads 4:4, 8:2 (with heads wider than hidden size / heads), and 8:1 with biases and a tied head.
_LLAMA = dict(
  hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=4, rms_norm_eps=1e-5
)
_MISTRAL = dict(
  hidden_size=64,
  intermediate_size=112,
  num_hidden_layers=2,
  num_attention_heads=8,
  num_key_value_heads=2,
  head_dim=12,
  rms_norm_eps=1e-5,
  sliding_window=None,
)
_QWEN2 = dict(
  hidden_size=64, intermediate_size=80, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=1, rms_norm_eps=1e-6
)
_VISION = dict(hidden_size=40, intermediate_size=72, num_hidden_layers=3, num_attention_heads=2, layer_norm_eps=1e-5)
_WIDE_EPSILON = dict(hidden_size=48, intermediate_size=64, num_hidden_layers=4, num_attention_heads=3, layer_norm_eps=1e-3)
CONFIGS = {
  "llama": _config("llava", "llama", text=_LLAMA, vision=_VISION),
  "mistral": _config("llava", "mistral", text=_MISTRAL, vision=_WIDE_EPSILON, layer=[-2, 0, 4]),
  "qwen2": _config("llava", "qwen2", text=_QWEN2, vision=_VISION, layer=1, tied=True),
  "full": _config("llava", "llama", text=_LLAMA, vision=_VISION, layer=-1, strategy="full"),
  "next": _config("llava_next", "mistral", text=_MISTRAL, vision=_VISION),
}

# A prompt is a list of parts: a number of text tokens, or a picture. A picture of LLaVA-1.5 is its number of visual tokens;
# one of LLaVA-NeXT besides says its tiles and the height and width it was scaled from.
_ONE, _FULL = ("image", 36), ("image", 37)
PROMPTS = {
  "one": [4, _ONE, 9],
  "two": [3, _ONE, 6, _ONE, 7],
  "adjacent": [_ONE, _ONE, 12],
  "text_only": [14],
  "no_instruction": [6, _ONE],
  "with_class_token": [2, _FULL, 5, _FULL, 8],
  "portrait": [3, ("image", 120, 3, 75, 37), 10],
  "landscape": [5, ("image", 112, 4, 33, 140), 8],
  "square": [4, ("image", 192, 5, 64, 64), 11],
  "two_tilings": [2, ("image", 166, 5, 55, 70), 4, ("image", 90, 4, 200, 22), 9],
  "next_no_instruction": [2, ("image", 134, 4, 90, 40)],
}
# The prompts of each config's goldens, in the order of its mixed batch.
PARITY_CASES = {
  "llama": ("two", "text_only", "one", "adjacent"),
  "mistral": ("two", "text_only", "one", "adjacent"),
  "qwen2": ("two", "text_only", "one", "adjacent"),
  "full": ("with_class_token",),
  "next": ("landscape", "two_tilings", "text_only", "portrait", "square"),
}


def case(name: str) -> dict[str, np.ndarray]:
  """The raw Hugging Face arrays of one prompt, a batch of 1; a picture's tiles fill the first of what room there is."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  tokens, pixels, sizes = [BOS], [], []
  for part in PROMPTS[name]:
    if isinstance(part, int):
      tokens.extend(rng.integers(0, BOS, part).tolist())
      continue
    _, count, *tiling = part
    tokens.extend([IMAGE] * count)
    pixels.append(rng.standard_normal([tiling[0] if tiling else 1, 3, TILE, TILE], np.float32))
    sizes.extend([tiling[1:]] if tiling else [])
  arrays = dict(input_ids=np.array([tokens]), attention_mask=np.ones([1, len(tokens)], int))
  if sizes:
    arrays.update(pixel_values=tiny.pad_tiles(pixels), image_sizes=np.array(sizes))
  elif pixels:
    arrays.update(pixel_values=np.concatenate(pixels))
  return arrays


def batch(names, padding: str = "right") -> dict[str, np.ndarray]:
  """The arrays of several prompts of one model in a batch, padded on the `right` or `left`."""
  cases = [case(name) for name in names]
  out = tiny.stack(cases, padding)
  with_pictures = [arrays for arrays in cases if "pixel_values" in arrays]
  if with_pictures:
    pictures = [picture for arrays in with_pictures for picture in arrays["pixel_values"]]
    tiled = "image_sizes" in with_pictures[0]
    out["pixel_values"] = tiny.pad_tiles(pictures) if tiled else np.stack(pictures)
    if tiled:
      out["image_sizes"] = np.concatenate([arrays["image_sizes"] for arrays in with_pictures])
  return out


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint, by its newer name, as torch lays it out."""
  text, vision = config["text_config"], config["vision_config"]
  size, mlp, patch = vision["hidden_size"], vision["intermediate_size"], vision["patch_size"]
  tower = "model.vision_tower"
  out = {
    f"{tower}.embeddings.class_embedding": (size,),
    f"{tower}.embeddings.patch_embedding.weight": (size, 3, patch, patch),
    f"{tower}.embeddings.position_embedding.weight": ((TILE // patch) ** 2 + 1, size),
  }
  out |= tiny.tower_shapes(tower, size, mlp, vision["num_hidden_layers"], ("pre_layrnorm", "post_layernorm"))
  layers = config["vision_feature_layer"]
  width = size * (len(layers) if isinstance(layers, list) else 1)
  out |= tiny.linear("model.multi_modal_projector.linear_1", width, text["hidden_size"])
  out |= tiny.linear("model.multi_modal_projector.linear_2", text["hidden_size"], text["hidden_size"])
  if config["model_type"] == "llava_next":
    out["model.image_newline"] = (text["hidden_size"],)
  return out | tiny.decoder_shapes(text, attention_bias=text["model_type"] == "qwen2", tied=config["tie_word_embeddings"])


def weights(config: dict) -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name."""
  return tiny.random_tensors(shapes(config))


def write_checkpoint(directory, config_name: str, *, hub_style: bool = False) -> None:
  """Writes config.json and model.safetensors.

  Args:
    directory: an existing folder.
    config_name: of `CONFIGS`.
    hub_style: older tensor names and config keys.
  """
  config, tensors = CONFIGS[config_name], weights(CONFIGS[config_name])
  if hub_style:
    tensors = {tiny.llava_hub_name(name): value for name, value in tensors.items()}
    config = tiny.llava_hub_config(config)
  tiny.write(directory, config, tensors)
