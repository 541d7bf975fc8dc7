"""Tiny InternVL checkpoints and prompts for parity tests, the same on every machine.

`make_goldens` (needs torch) runs transformers' models on them and writes `internvl.safetensors`; the tests run ours.
"""

from __future__ import annotations

import json
import pathlib
import zlib

import numpy as np
import tokenizers
import transformers

from tests.reference import tiny

feature_rows, logit_rows = tiny.feature_rows, tiny.logit_rows
GOLDENS = pathlib.Path(__file__).with_name("internvl.safetensors")

START, END, IMAGE, IM_END = 150, 151, 152, 153
VOCABULARY = 160
NEW_TOKENS = 16
TILE, PATCH = 28, 7
TILE_TOKENS = 4

# As OpenGVLab/InternVL3-*-hf have it.
TEMPLATE = (
  "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n'}}{% for content in message['content'] %}"
  "{% if content['type'] == 'image' %}{{ '<IMG_CONTEXT>\n' }}{% elif content['type'] == 'video' %}{{ '<video>\n' }}"
  "{% else %}{{ content['text'] }}{% endif %}{% endfor %}{{'<|im_end|>\n'}}{% endfor %}"
  "{% if add_generation_prompt %}{{'<|im_start|>assistant\n' }}{% endif %}"
)
SPECIAL = ("<img>", "</img>", "<IMG_CONTEXT>", "<|im_end|>", "<|im_start|>", "<|endoftext|>")


def _config(text_type, *, text, vision, layer=-1, tied=False):
  """config.json as transformers 5 writes it."""
  return {
    "architectures": ["InternVLForConditionalGeneration"],
    "model_type": "internvl",
    "dtype": "float32",
    "downsample_ratio": 0.5,
    "image_seq_length": TILE_TOKENS,
    "image_token_id": IMAGE,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": layer,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": tied,
    "text_config": {
      "model_type": text_type,
      "vocab_size": VOCABULARY,
      "max_position_embeddings": 1024,
      "rms_norm_eps": 1e-6,
      "rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0},
      "eos_token_id": IM_END,
      "tie_word_embeddings": tied,
      **text,
    },
    "vision_config": {
      "model_type": "internvl_vision",
      "hidden_act": "gelu",
      "image_size": [TILE, TILE],
      "patch_size": [PATCH, PATCH],
      "layer_norm_eps": 1e-6,
      **vision,
    },
  }


# Query heads to key/value heads 8:2 (with biases), and 4:2 with normalized queries and keys, wider than hidden size / heads.
_QWEN2 = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2)
_QWEN3 = dict(
  hidden_size=48, intermediate_size=80, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16
)
# As in the towers of 300M and of 6B parameters; the last is as the first, with the norm that neither has.
_LAYER_NORM = dict(
  hidden_size=40,
  intermediate_size=72,
  num_hidden_layers=2,
  num_attention_heads=2,
  attention_bias=True,
  use_qk_norm=False,
  norm_type="layer_norm",
  use_mean_pooling=True,
)
_RMS_NORM = dict(
  hidden_size=48,
  intermediate_size=64,
  num_hidden_layers=3,
  num_attention_heads=3,
  attention_bias=False,
  use_qk_norm=True,
  norm_type="rms_norm",
  use_mean_pooling=False,
  layer_norm_eps=1e-4,
)
CONFIGS = {
  "qwen2": _config("qwen2", text=_QWEN2, vision=_LAYER_NORM),
  "qwen3": _config("qwen3", text=_QWEN3, vision=_RMS_NORM, layer=-2, tied=True),
  "final_norm": _config("qwen2", text=_QWEN2, vision={**_LAYER_NORM, "use_mean_pooling": False, "num_hidden_layers": 1}),
}

# A prompt is a list of parts: a number of text tokens, a token, or a picture by its number of tiles. The frames of a video
# are pictures of one tile between texts.
_FRAMES = [3, ("tiles", 1), 4, ("tiles", 1), 4, ("tiles", 1)]
PROMPTS = {
  "one_tile": [4, ("tiles", 1), 9, ("token", IM_END), 3],
  "tiled": [3, ("tiles", 7), 8],  # 2 x 3, and the whole picture
  "two_pictures": [2, ("tiles", 7), 4, ("tiles", 1), 6, ("token", IM_END), 2],
  "adjacent": [("tiles", 5), ("tiles", 3), 12],
  "video": [*_FRAMES, 9, ("token", IM_END), 2],
  "picture_and_video": [2, ("tiles", 3), *_FRAMES, 7],
  "text_only": [14],
  "no_instruction": [6, ("tiles", 5)],
}
# The prompts of each config's goldens, in the order of its mixed batch.
PARITY_CASES = {
  "qwen2": ("two_pictures", "text_only", "one_tile", "tiled", "video", "picture_and_video"),
  "qwen3": ("two_pictures", "text_only", "one_tile", "video"),
  "final_norm": ("adjacent",),
}


def case(name: str) -> dict[str, np.ndarray]:
  """The raw Hugging Face arrays of one prompt, a batch of 1."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  tokens, tiles = [], 0
  for part in PROMPTS[name]:
    if isinstance(part, int):
      tokens.extend(rng.integers(0, START, part).tolist())
    elif part[0] == "token":
      tokens.append(part[1])
    else:
      tokens.extend([START] + [IMAGE] * TILE_TOKENS * part[1] + [END])
      tiles += part[1]
  arrays = dict(input_ids=np.array([tokens]), attention_mask=np.ones([1, len(tokens)], int))
  if tiles:
    arrays.update(pixel_values=rng.standard_normal([tiles, 3, TILE, TILE], np.float32))
  return arrays


def batch(names, padding: str = "right") -> dict[str, np.ndarray]:
  """The arrays of several prompts of one model in a batch, padded on the `right` or `left`."""
  return tiny.stack([case(name) for name in names], padding, ("pixel_values",))


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint, by its newer name, as torch lays it out."""
  text, vision = config["text_config"], config["vision_config"]
  size, mlp = vision["hidden_size"], vision["intermediate_size"]
  tower, projector = "model.vision_tower", "model.multi_modal_projector"
  out = {
    f"{tower}.embeddings.cls_token": (1, 1, size),
    f"{tower}.embeddings.position_embeddings": (1, (TILE // PATCH) ** 2 + 1, size),
    f"{tower}.embeddings.patch_embeddings.projection.weight": (size, 3, PATCH, PATCH),
    f"{tower}.embeddings.patch_embeddings.projection.bias": (size,),
    f"{projector}.layer_norm.weight": (4 * size,),
    f"{projector}.layer_norm.bias": (4 * size,),
  }
  norms = [] if vision["use_mean_pooling"] else [f"{tower}.layernorm"]
  for number in range(vision["num_hidden_layers"]):
    layer = f"{tower}.encoder.layer.{number}"
    out[f"{layer}.lambda_1"] = out[f"{layer}.lambda_2"] = (size,)
    for name in ("q_proj", "k_proj", "v_proj"):
      out |= tiny.linear(f"{layer}.attention.{name}", size, size, vision["attention_bias"])
    out |= tiny.linear(f"{layer}.attention.projection_layer", size, size)
    out |= tiny.linear(f"{layer}.mlp.fc1", size, mlp) | tiny.linear(f"{layer}.mlp.fc2", mlp, size)
    if vision["use_qk_norm"]:
      out[f"{layer}.attention.q_norm.weight"] = out[f"{layer}.attention.k_norm.weight"] = (size,)
    for norm in ("layernorm_before", "layernorm_after"):
      out[f"{layer}.{norm}.weight"] = (size,)
      norms += [f"{layer}.{norm}"] * (vision["norm_type"] == "layer_norm")
  for norm in norms:
    out[f"{norm}.weight"] = out[f"{norm}.bias"] = (size,)
  out |= tiny.linear(f"{projector}.linear_1", 4 * size, text["hidden_size"])
  out |= tiny.linear(f"{projector}.linear_2", text["hidden_size"], text["hidden_size"])
  qwen3 = text["model_type"] == "qwen3"
  return out | tiny.decoder_shapes(text, attention_bias=not qwen3, tied=config["tie_word_embeddings"], qk_norm=qwen3)


def weights(config: dict) -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name."""
  return tiny.random_tensors(shapes(config))


def hub_name(name: str) -> str:
  """A tensor's name in the published checkpoints."""
  for new, old in (
    ("lm_head.", "language_model.lm_head."),
    ("model.language_model.", "language_model.model."),
    ("model.", ""),
  ):
    if name.startswith(new):
      return old + name.removeprefix(new)
  return name


def write_checkpoint(directory, config_name: str, *, hub_style: bool = False) -> None:
  """Writes config.json and model.safetensors.

  Args:
    directory: an existing folder.
    config_name: of `CONFIGS`.
    hub_style: older tensor names and config keys; the top level does not say whether the head is tied.
  """
  config, tensors = CONFIGS[config_name], weights(CONFIGS[config_name])
  if hub_style:
    tensors = {hub_name(name): value for name, value in tensors.items()}
    text = {key: value for key, value in config["text_config"].items() if key != "rope_parameters"}
    text |= {"rope_theta": 1e4, "rope_scaling": {"type": "dynamic", "factor": 2.0}}
    config = {key: value for key, value in config.items() if key != "tie_word_embeddings"} | {"text_config": text}
  tiny.write(directory, config, tensors)


def write_processor(directory, special=SPECIAL, **settings) -> None:
  """Writes a tokenizer, a chat template and the settings of an image processor.

  Args:
    directory: an existing folder.
    special: tokens from `START` on.
    **settings: of the image processor.
  """
  directory = pathlib.Path(directory)
  settings = {"image_processor_type": "GotOcr2ImageProcessorFast", "size": {"height": 28, "width": 28}, **settings}
  settings |= {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225], "crop_to_patches": False}
  (directory / "preprocessor_config.json").write_text(json.dumps(settings))
  words = ("Frame1", "Frame2", "Frame3", ":", "user", "assistant", "red", "blue")
  vocabulary = {word: number for number, word in enumerate(words)} | {f"w{number}": number for number in range(8, 150)}
  vocabulary |= {token: START + number for number, token in enumerate(special)}
  tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="w8"))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  tokenizer.add_special_tokens(list(special))
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", unk_token="w8"
  )
  fast.save_pretrained(directory)
  (directory / "chat_template.jinja").write_text(TEMPLATE)
