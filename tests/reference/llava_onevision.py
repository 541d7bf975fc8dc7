"""Tiny LLaVA-OneVision checkpoints and prompts for parity tests, the same on every machine.

`make_goldens` (needs torch) runs transformers' model on them and writes `llava_onevision.safetensors`; the tests run ours.
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
GOLDENS = pathlib.Path(__file__).with_name("llava_onevision.safetensors")

IM_END, IMAGE, VIDEO = 149, 150, 151
VOCABULARY = 160
NEW_TOKENS = 16
# 5 x 5 patches, and two pixels that belong to none.
TILE, PATCH = 37, 7


def _config(*, text, vision, layer=-1, tied=False):
  """config.json as transformers 5 writes it."""
  return {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "model_type": "llava_onevision",
    "dtype": "float32",
    "image_token_index": IMAGE,
    "video_token_index": VIDEO,
    "image_grid_pinpoints": [[TILE * rows, TILE * columns] for rows in range(1, 4) for columns in range(1, 4)],
    "vision_aspect_ratio": "anyres_max_2",
    "vision_feature_layer": layer,
    "vision_feature_select_strategy": "full",
    "projector_hidden_act": "gelu",
    "tie_word_embeddings": tied,
    "text_config": {
      "model_type": "qwen2",
      "vocab_size": VOCABULARY,
      "max_position_embeddings": 1024,
      "rms_norm_eps": 1e-6,
      "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
      "eos_token_id": IM_END,
      "tie_word_embeddings": tied,
      **text,
    },
    "vision_config": {
      "model_type": "siglip_vision_model",
      "hidden_act": "gelu_pytorch_tanh",
      "image_size": TILE,
      "patch_size": PATCH,
      "vision_use_head": False,
      **vision,
    },
  }


# Query heads to key/value heads 8:2, and 7:1 with a tied head and the features of two layers. Vision heads 10 and 72 wide.
_TEXT = dict(hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=8, num_key_value_heads=2)
_TIED = dict(hidden_size=56, intermediate_size=80, num_hidden_layers=2, num_attention_heads=7, num_key_value_heads=1)
_VISION = dict(hidden_size=40, intermediate_size=72, num_hidden_layers=3, num_attention_heads=4, layer_norm_eps=1e-6)
_WIDE = dict(hidden_size=72, intermediate_size=64, num_hidden_layers=2, num_attention_heads=1, layer_norm_eps=1e-3)
CONFIGS = {
  "untied": _config(text=_TEXT, vision=_VISION),
  "tied": _config(text=_TIED, vision=_WIDE, layer=[-2, -1], tied=True),
}


def _published(hidden, mlp, layers, heads, kv_heads, vocab=152_128, tied=False) -> dict:
  return {
    "architectures": ["LlavaOnevisionForConditionalGeneration"],
    "model_type": "llava_onevision",
    "image_token_index": 151_646,
    "video_token_index": 151_647,
    "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
    "projector_hidden_act": "gelu",
    "vision_aspect_ratio": "anyres_max_9",
    "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full",
    "text_config": dict(
      model_type="qwen2",
      vocab_size=vocab,
      hidden_size=hidden,
      intermediate_size=mlp,
      num_hidden_layers=layers,
      num_attention_heads=heads,
      num_key_value_heads=kv_heads,
      max_position_embeddings=32_768,
      hidden_act="silu",
      rms_norm_eps=1e-6,
      rope_theta=1e6,
      sliding_window=32_768,
      use_sliding_window=False,
      eos_token_id=151_645,
      tie_word_embeddings=tied,
    ),
    "vision_config": dict(
      model_type="siglip_vision_model",
      hidden_size=1152,
      intermediate_size=4304,
      num_hidden_layers=26,
      num_attention_heads=16,
      image_size=384,
      patch_size=14,
      vision_use_head=False,
    ),
  }


# The config.json of the published checkpoints, without the keys that nothing here reads.
PUBLISHED = {
  "llava-onevision-0.5b": _published(896, 4864, 24, 14, 2, vocab=152_000, tied=True),
  "llava-onevision-7b": _published(3584, 18_944, 28, 28, 4),
  "llava-onevision-72b": _published(8192, 29_568, 80, 64, 8),
}

# A prompt is a list of parts: a number of text tokens; a picture, with its visual tokens, its tiles, and the height and
# width that it was scaled from; or a video, with its visual tokens and frames.
_PART, _CLIP = ("image", 26, 1, 50, 31), ("video", 28, 3)
PROMPTS = {
  "square": [5, ("image", 55, 2, 30, 30), 9],
  "wide": [3, ("image", 58, 3, 25, 70), 8],
  "tall": [4, ("image", 73, 3, 60, 37), 10],
  "scaled_down": [2, ("image", 81, 10, 111, 111), 11],
  "scaled_down_wide": [3, ("image", 70, 7, 60, 100), 6],
  "several": [4, _PART, 3, _PART, 8],
  "adjacent": [_PART, _PART, _PART, 10],
  "video": [5, _CLIP, 9],
  "one_frame": [2, ("video", 10, 1), 7],
  "image_and_video": [3, ("image", 55, 2, 30, 30), 2, _CLIP, 6],
  "two_videos": [2, _CLIP, 3, _CLIP, 5],
  "text_only": [14],
  "no_instruction": [6, ("image", 55, 2, 37, 37)],
}
# The prompts of each config's goldens, in the order of its mixed batch.
PARITY_CASES = {
  "untied": (
    "several",
    "square",
    "video",
    "text_only",
    "wide",
    "tall",
    "scaled_down",
    "image_and_video",
    "scaled_down_wide",
    "adjacent",
  ),
  "tied": ("square", "several", "text_only", "video", "scaled_down"),
}


def case(name: str) -> dict[str, np.ndarray]:
  """The raw Hugging Face arrays of one prompt, a batch of 1."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  tokens, tiles, sizes, frames = [], [], [], []
  for part in PROMPTS[name]:
    if isinstance(part, int):
      tokens.extend(rng.integers(0, IM_END, part).tolist())
      continue
    kind, visual, count, *size = part
    tokens.extend([IMAGE if kind == "image" else VIDEO] * visual)
    pixels = rng.standard_normal([count, 3, TILE, TILE], np.float32)
    if kind == "image":
      tiles.append(pixels)
      sizes.append(size)
    else:
      frames.append(pixels)
  # The end of the user's message, and a word after it.
  tokens.extend([IM_END, 7])
  arrays = dict(input_ids=np.array([tokens]), attention_mask=np.ones([1, len(tokens)], int))
  if tiles:
    arrays.update(pixel_values=tiny.pad_tiles(tiles), image_sizes=np.array(sizes), batch_num_images=np.array([len(tiles)]))
  if frames:
    arrays.update(pixel_values_videos=np.stack(frames))
  return arrays


def batch(names, padding: str = "right") -> dict[str, np.ndarray]:
  """The arrays of several prompts of one model in a batch, padded on the `right` or `left`."""
  cases = [case(name) for name in names]
  out = tiny.stack(cases, padding)
  for name in ("pixel_values", "image_sizes", "batch_num_images", "pixel_values_videos"):
    if values := [value for arrays in cases for value in arrays.get(name, ())]:
      out[name] = tiny.pad_tiles(values) if name == "pixel_values" else np.stack(values)
  return out


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint, by its newer name, as torch lays it out."""
  text, vision = config["text_config"], config["vision_config"]
  size, mlp = vision["hidden_size"], vision["intermediate_size"]
  tower = "model.vision_tower"
  out = {
    f"{tower}.embeddings.patch_embedding.weight": (size, 3, PATCH, PATCH),
    f"{tower}.embeddings.patch_embedding.bias": (size,),
    f"{tower}.embeddings.position_embedding.weight": ((TILE // PATCH) ** 2, size),
    "model.image_newline": (text["hidden_size"],),
  }
  out |= tiny.tower_shapes(tower, size, mlp, vision["num_hidden_layers"], ("post_layernorm",))
  layers = config["vision_feature_layer"]
  width = size * (len(layers) if isinstance(layers, list) else 1)
  out |= tiny.linear("model.multi_modal_projector.linear_1", width, text["hidden_size"])
  out |= tiny.linear("model.multi_modal_projector.linear_2", text["hidden_size"], text["hidden_size"])
  return out | tiny.decoder_shapes(text, attention_bias=True, tied=config["tie_word_embeddings"])


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
    # transformers takes it from the decoder.
    del config["tie_word_embeddings"]
  tiny.write(directory, config, tensors)


# As the published checkpoints have it: pictures, then videos, then text.
TEMPLATE = (
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + ' ' }}"
  "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>' }}{% endfor %}"
  "{% for content in message['content'] | selectattr('type', 'equalto', 'video') %}{{ '<video>' }}{% endfor %}"
  "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ '\\n' + content['text'] }}{% endfor %}"
  "{{ '<|im_end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)


def write_processor(directory, **settings) -> None:
  """Writes a tokenizer, a chat template and the settings of an image processor.

  Args:
    directory: an existing folder.
    **settings: of the image processor, in place of those that fit `CONFIGS`.
  """
  directory = pathlib.Path(directory)
  words = {f"w{number}": number for number in range(IM_END - 3)} | {"<|im_start|>": IM_END - 3, "user": IM_END - 2}
  words |= {"assistant": IM_END - 1, "<|im_end|>": IM_END, "<image>": IMAGE, "<video>": VIDEO}
  tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="w0"))
  tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
  tokenizer.add_special_tokens(["<|im_start|>", "<|im_end|>", "<image>", "<video>"])
  tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="w1")
  tokenizer.save_pretrained(directory)
  (directory / "chat_template.jinja").write_text(TEMPLATE)
  settings = {
    "image_processor_type": "LlavaOnevisionImageProcessor",
    "size": {"height": TILE, "width": TILE},
    "image_grid_pinpoints": CONFIGS["untied"]["image_grid_pinpoints"],
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
    "resample": 3,
    **settings,
  }
  (directory / "preprocessor_config.json").write_text(json.dumps(settings))
