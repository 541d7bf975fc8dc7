"""Tiny Qwen2.5-VL checkpoints and prompts for parity tests: configs, weights and raw inputs, the same on every machine.

`make_goldens` (needs torch) runs transformers' model on them and writes `qwen2_5_vl.safetensors`; the tests run ours.
"""

from __future__ import annotations

import pathlib
import zlib

import numpy as np

from tests.reference import tiny

feature_rows, logit_rows = tiny.feature_rows, tiny.logit_rows
GOLDENS = pathlib.Path(__file__).with_name("qwen2_5_vl.safetensors")

BOS, IM_START, IM_END, VISION_START, VISION_END, IMAGE, VIDEO = range(149, 156)
VOCABULARY = 160
NEW_TOKENS = 24


def _config(*, text, mrope, tied, vision, theta, tokens_per_second):
  """config.json as transformers 5 writes it, with the text config nested."""
  return {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "dtype": "float32",
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "tie_word_embeddings": tied,
    "text_config": {
      "model_type": "qwen2_5_vl_text",
      "vocab_size": VOCABULARY,
      "max_position_embeddings": 1024,
      "bos_token_id": BOS,
      "eos_token_id": IM_END,
      "hidden_act": "silu",
      "use_sliding_window": False,
      "rope_parameters": {"rope_type": "default", "rope_theta": theta, "mrope_section": mrope},
      **text,
    },
    "vision_config": {
      "model_type": "qwen2_5_vl",
      "hidden_act": "silu",
      "in_channels": 3,
      "patch_size": 14,
      "temporal_patch_size": 2,
      "spatial_merge_size": 2,
      "window_size": 112,
      "tokens_per_second": tokens_per_second,
      "out_hidden_size": text["hidden_size"],
      **vision,
    },
  }


# Query heads to key/value heads 8:2, 4:4 and 8:1; one tied head.
CONFIGS = {
  "gqa": _config(
    text=dict(
      hidden_size=64,
      intermediate_size=112,
      num_hidden_layers=2,
      num_attention_heads=8,
      num_key_value_heads=2,
      rms_norm_eps=1e-6,
    ),
    mrope=[1, 1, 2],
    tied=False,
    theta=1e6,
    tokens_per_second=2,
    vision=dict(depth=3, hidden_size=40, intermediate_size=72, num_heads=2, fullatt_block_indexes=[1]),
  ),
  "mha_tied": _config(
    text=dict(
      hidden_size=64,
      intermediate_size=96,
      num_hidden_layers=2,
      num_attention_heads=4,
      num_key_value_heads=4,
      rms_norm_eps=1e-5,
    ),
    mrope=[2, 3, 3],
    tied=True,
    theta=1e6,
    tokens_per_second=4,
    vision=dict(depth=3, hidden_size=48, intermediate_size=80, num_heads=3, fullatt_block_indexes=[1]),
  ),
  "mqa": _config(
    text=dict(
      hidden_size=96,
      intermediate_size=128,
      num_hidden_layers=2,
      num_attention_heads=8,
      num_key_value_heads=1,
      rms_norm_eps=1e-6,
    ),
    mrope=[3, 2, 1],
    tied=False,
    theta=1e4,
    tokens_per_second=2,
    vision=dict(depth=3, hidden_size=32, intermediate_size=64, num_heads=4, fullatt_block_indexes=[0, 2]),
  ),
}

# A prompt is a list of parts: a number of text tokens, a token, or a picture.
END = "end of message"
PROMPTS = {
  "square": [3, ("image", 1, 16, 16), 9, END, 4],
  "ragged_22x30": [1, ("image", 1, 22, 30), 14, END, 2],
  "ragged_6x50": [6, ("image", 1, 6, 50), 5, END, 3],
  "two_images": [4, ("image", 1, 8, 12), 3, ("image", 1, 18, 4), 11, END, 2],
  "three_images": [2, ("image", 1, 4, 4), ("image", 1, 22, 6), 5, ("image", 1, 16, 10), 7, END, 1],
  "text_only": [17, END, 5],
  # Temporal positions 0, 1, 2, 4 (tokens_per_second 2) or 0, 2, 5, 8 (4), all below max(14, 18) / 2 = 9: transformers
  # goes on otherwise after longer videos.
  "video": [5, ("video", 4, 14, 18, 0.7), 8, END, 3],
  "image_and_video": [2, ("image", 1, 4, 10), 1, ("video", 2, 6, 8, 0.5), 4, ("image", 1, 10, 6), 6, END, 2],
  "no_end": [3, ("image", 1, 12, 8), 6],
  "no_instruction": [7, ("image", 1, 10, 10)],
}
# The two last serve only the tests of pruning: without im_end, and without text after the picture.
PARITY_CASES = dict.fromkeys(CONFIGS, tuple(PROMPTS)[:-2])
BATCH = ("two_images", "text_only", "video", "ragged_6x50", "image_and_video", "square", "three_images", "ragged_22x30")
# Arrays of pictures and videos.
MEDIA = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw", "second_per_grid_ts")


def case(name: str) -> dict[str, np.ndarray]:
  """The raw Hugging Face arrays of one prompt, a batch of 1."""
  rng = np.random.default_rng(zlib.crc32(name.encode()))
  tokens, pixels, grids, seconds = [BOS], {"image": [], "video": []}, {"image": [], "video": []}, []
  for part in PROMPTS[name]:
    if part == END:
      tokens.append(IM_END)
    elif isinstance(part, int):
      tokens.extend(rng.integers(0, BOS, part).tolist())
    else:
      kind, frames, height, width = part[:4]
      count = frames * height * width
      tokens.extend([VISION_START] + [IMAGE if kind == "image" else VIDEO] * (count // 4) + [VISION_END])
      pixels[kind].append(rng.standard_normal([count, 3 * 2 * 14 * 14], np.float32))
      grids[kind].append([frames, height, width])
      seconds.extend(part[4:])
  arrays = dict(input_ids=np.array([tokens]), attention_mask=np.ones([1, len(tokens)], int))
  if grids["image"]:
    arrays.update(pixel_values=np.concatenate(pixels["image"]), image_grid_thw=np.array(grids["image"]))
  if grids["video"]:
    arrays.update(
      pixel_values_videos=np.concatenate(pixels["video"]),
      video_grid_thw=np.array(grids["video"]),
      second_per_grid_ts=np.array(seconds),
    )
  return arrays


def batch(names=BATCH, padding: str = "right") -> dict[str, np.ndarray]:
  """The arrays of several prompts of one model in a batch, padded on the `right` or `left`."""
  return tiny.stack([case(name) for name in names], padding, MEDIA)


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint, by its newer name, as torch lays it out."""
  text, vision = config["text_config"], config["vision_config"]
  out = {}
  hidden, mlp = vision["hidden_size"], vision["intermediate_size"]
  patch = (vision["in_channels"], vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
  out["model.visual.patch_embed.proj.weight"] = (hidden,) + patch
  for number in range(vision["depth"]):
    block = f"model.visual.blocks.{number}"
    out[f"{block}.norm1.weight"] = out[f"{block}.norm2.weight"] = (hidden,)
    out |= tiny.linear(f"{block}.attn.qkv", hidden, 3 * hidden)
    out |= tiny.linear(f"{block}.attn.proj", hidden, hidden)
    out |= tiny.linear(f"{block}.mlp.gate_proj", hidden, mlp)
    out |= tiny.linear(f"{block}.mlp.up_proj", hidden, mlp)
    out |= tiny.linear(f"{block}.mlp.down_proj", mlp, hidden)
  out["model.visual.merger.ln_q.weight"] = (hidden,)
  merged = hidden * vision["spatial_merge_size"] ** 2
  out |= tiny.linear("model.visual.merger.mlp.0", merged, merged)
  out |= tiny.linear("model.visual.merger.mlp.2", merged, vision["out_hidden_size"])
  return out | tiny.decoder_shapes(text, attention_bias=True, tied=config["tie_word_embeddings"])


def weights(config: dict) -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name."""
  return tiny.random_tensors(shapes(config))


def flat(config: dict) -> dict:
  """The same config as the hub's config.json holds it: text fields at the top level, older keys."""
  out = {key: value for key, value in config.items() if key not in ("text_config", "vision_config", "dtype")}
  text = dict(config["text_config"])
  rope = text.pop("rope_parameters")
  del text["model_type"]
  vision = dict(config["vision_config"])
  vision["in_chans"] = vision.pop("in_channels")
  vision["spatial_patch_size"] = vision["patch_size"]
  del vision["model_type"]
  return {
    **out,
    **text,
    "torch_dtype": config["dtype"],
    "rope_theta": rope["rope_theta"],
    "rope_scaling": {"type": "mrope", "mrope_section": rope["mrope_section"]},
    "vision_config": vision,
  }


def hub_name(name: str) -> str:
  """A tensor's name in the published checkpoints."""
  return name.replace("model.visual.", "visual.").replace("model.language_model.", "model.")


def write_checkpoint(directory, config_name: str, *, hub_style: bool = False) -> None:
  """Writes config.json and model.safetensors.

  Args:
    directory: an existing folder.
    config_name: of `CONFIGS`.
    hub_style: flat config and older tensor names.
  """
  config = CONFIGS[config_name]
  tensors = weights(config)
  if hub_style:
    tensors = {hub_name(name): value for name, value in tensors.items()}
  tiny.write(directory, flat(config) if hub_style else config, tensors)
