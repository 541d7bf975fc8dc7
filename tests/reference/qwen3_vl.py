"""Tiny Qwen3-VL checkpoints and prompts for parity tests: configs, weights and raw inputs, the same on every machine.

`make_goldens` (needs torch) runs transformers' model on them and writes `qwen3_vl.safetensors`; the tests run ours.
"""

from __future__ import annotations

import json
import pathlib
import zlib

import numpy as np
import tokenizers
from tokenizers import decoders
from tokenizers import models as tokenizer_models
from tokenizers import pre_tokenizers
import transformers

from tests.reference import qwen2_5_vl
from tests.reference import tiny

feature_rows, logit_rows = tiny.feature_rows, tiny.logit_rows
GOLDENS = pathlib.Path(__file__).with_name("qwen3_vl.safetensors")
# Of `make_qwen3_vl_goldens`: transformers' rules for videos, and its shapes of the published sizes.
RULES = pathlib.Path(__file__).with_name("qwen3_vl.json")

BOS, IM_START, IM_END, VISION_START, VISION_END, IMAGE, VIDEO = range(149, 156)
VOCABULARY = 160
NEW_TOKENS = 16
PATCH = 16
# Of the prompts: with it, no greedy token of any prompt is nearly a tie.
SEED = 4


def _config(*, text, mrope, tied, vision):
  """config.json as transformers 5 writes it."""
  return {
    "architectures": ["Qwen3VLForConditionalGeneration"],
    "model_type": "qwen3_vl",
    "dtype": "float32",
    "image_token_id": IMAGE,
    "video_token_id": VIDEO,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
    "tie_word_embeddings": tied,
    "text_config": {
      "model_type": "qwen3_vl_text",
      "vocab_size": VOCABULARY,
      "max_position_embeddings": 1024,
      "bos_token_id": BOS,
      "eos_token_id": IM_END,
      "hidden_act": "silu",
      "attention_bias": False,
      "rms_norm_eps": 1e-6,
      "rope_parameters": {"rope_type": "default", "rope_theta": 5e6, "mrope_section": mrope, "mrope_interleaved": True},
      **text,
    },
    "vision_config": {
      "model_type": "qwen3_vl_vision",
      "hidden_act": "gelu_pytorch_tanh",
      "in_channels": 3,
      "patch_size": PATCH,
      "temporal_patch_size": 2,
      "spatial_merge_size": 2,
      "num_position_embeddings": 36,
      "out_hidden_size": text["hidden_size"],
      "rope_parameters": {"rope_type": "axial", "rope_theta": 10_000.0},
      **vision,
    },
  }


# Four layers, two of them with DeepStack; and as many levels as layers, heads as wide as those of the 8B tower, tied.
CONFIGS = {
  "gqa": _config(
    text=dict(
      hidden_size=64,
      intermediate_size=112,
      num_hidden_layers=4,
      num_attention_heads=8,
      num_key_value_heads=2,
      head_dim=16,
    ),
    mrope=[4, 2, 2],
    tied=False,
    vision=dict(depth=4, hidden_size=40, intermediate_size=72, num_heads=2, deepstack_visual_indexes=[1, 2]),
  ),
  "tied": _config(
    text=dict(
      hidden_size=48,
      intermediate_size=96,
      num_hidden_layers=2,
      num_attention_heads=4,
      num_key_value_heads=2,
      head_dim=16,
    ),
    mrope=[4, 2, 2],
    tied=True,
    vision=dict(depth=3, hidden_size=144, intermediate_size=80, num_heads=2, deepstack_visual_indexes=[0, 2]),
  ),
}

# A prompt is a list of parts: a number of text tokens, a token, or a picture. The table of positions has 6 x 6 entries.
END = "end of message"
PROMPTS = {
  "exact_6x6": [3, ("image", 1, 6, 6), 9, END, 4],
  "small_2x2": [1, ("image", 1, 2, 2), 6, END, 2],
  "large_10x14": [2, ("image", 1, 10, 14), 14, END, 2],
  "wide_4x20": [6, ("image", 1, 4, 20), 5, END, 3],
  "two_images": [4, ("image", 1, 8, 12), 3, ("image", 1, 10, 4), 11, END, 2],
  "text_only": [17, END, 5],
  "video": [5, ("video", 3, 6, 8), 8, END, 3],
  "images_and_video": [2, ("image", 1, 4, 10), 1, ("video", 2, 6, 4), 4, ("image", 1, 8, 6), 6, END, 2],
  "no_end": [3, ("image", 1, 12, 8), 6],
  "no_instruction": [7, ("video", 2, 10, 6)],
}
# The two last serve only the tests of pruning: without im_end, and without text after the video.
BATCH = tuple(PROMPTS)[:-2]
# Arrays of pictures and videos.
MEDIA = ("pixel_values", "image_grid_thw", "pixel_values_videos", "video_grid_thw")
PARITY_CASES = dict.fromkeys(CONFIGS, BATCH)


def case(name: str) -> dict[str, np.ndarray]:
  """The raw Hugging Face arrays of one prompt, a batch of 1; text stands for the time of each slice of a video."""
  rng = np.random.default_rng([SEED, zlib.crc32(name.encode())])
  words = lambda count: rng.integers(0, BOS, count).tolist()
  tokens, pixels, grids = [BOS], {"image": [], "video": []}, {"image": [], "video": []}
  for part in PROMPTS[name]:
    if part == END:
      tokens.append(IM_END)
    elif isinstance(part, int):
      tokens.extend(words(part))
    else:
      kind, frames, height, width = part
      tokens.append(VISION_START)
      if kind == "image":
        tokens.extend([IMAGE] * (height * width // 4))
      else:
        for _ in range(frames):
          tokens.extend([*words(4), VISION_START, *[VIDEO] * (height * width // 4), VISION_END])
      tokens.append(VISION_END)
      pixels[kind].append(rng.standard_normal([frames * height * width, 3 * 2 * PATCH * PATCH], np.float32))
      grids[kind].append([frames, height, width])
  arrays = dict(input_ids=np.array([tokens]), attention_mask=np.ones([1, len(tokens)], int))
  for kind, suffix in (("image", ""), ("video", "_videos")):
    if grids[kind]:
      arrays |= {f"pixel_values{suffix}": np.concatenate(pixels[kind]), f"{kind}_grid_thw": np.array(grids[kind])}
  return arrays


def batch(names=BATCH, padding: str = "right") -> dict[str, np.ndarray]:
  """The arrays of several prompts of one model in a batch, padded on the `right` or `left`."""
  return tiny.stack([case(name) for name in names], padding, MEDIA)


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
  """Every tensor of a checkpoint, by its newer name, as torch lays it out."""
  text, vision = config["text_config"], config["vision_config"]
  hidden, mlp = vision["hidden_size"], vision["intermediate_size"]
  patch = (vision["in_channels"], vision["temporal_patch_size"], vision["patch_size"], vision["patch_size"])
  out = {"model.visual.patch_embed.proj.weight": (hidden, *patch), "model.visual.patch_embed.proj.bias": (hidden,)}
  out["model.visual.pos_embed.weight"] = (vision["num_position_embeddings"], hidden)
  norm = lambda name, size: {f"{name}.weight": (size,), f"{name}.bias": (size,)}
  for number in range(vision["depth"]):
    block = f"model.visual.blocks.{number}"
    out |= norm(f"{block}.norm1", hidden) | norm(f"{block}.norm2", hidden)
    out |= tiny.linear(f"{block}.attn.qkv", hidden, 3 * hidden)
    out |= tiny.linear(f"{block}.attn.proj", hidden, hidden)
    out |= tiny.linear(f"{block}.mlp.linear_fc1", hidden, mlp)
    out |= tiny.linear(f"{block}.mlp.linear_fc2", mlp, hidden)
  merged = hidden * vision["spatial_merge_size"] ** 2
  mergers = {"merger": hidden}
  mergers |= {f"deepstack_merger_list.{level}": merged for level in range(len(vision["deepstack_visual_indexes"]))}
  for name, normed in mergers.items():
    name = f"model.visual.{name}"
    out |= norm(f"{name}.norm", normed)
    out |= tiny.linear(f"{name}.linear_fc1", merged, merged)
    out |= tiny.linear(f"{name}.linear_fc2", merged, vision["out_hidden_size"])
  return out | tiny.decoder_shapes(text, attention_bias=False, tied=config["tie_word_embeddings"], qk_norm=True)


def weights(config: dict) -> dict[str, np.ndarray]:
  """Random float32 tensors, each seeded by its name."""
  return tiny.random_tensors(shapes(config))


def as_published(config: dict) -> dict:
  """The same config with the keys of the hub's config.json."""
  text, vision = dict(config["text_config"]), dict(config["vision_config"])
  rope = dict(text.pop("rope_parameters"))
  text |= {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}
  del vision["rope_parameters"]
  return {**config, "text_config": text, "vision_config": {**vision, "model_type": "qwen3_vl"}}


def write_checkpoint(directory, config_name: str, *, hub_style: bool = False) -> None:
  """Writes config.json and model.safetensors.

  Args:
    directory: an existing folder.
    config_name: of `CONFIGS`.
    hub_style: the hub's keys, and tensor names without the prefix that transformers adds since 4.52.
  """
  config = CONFIGS[config_name]
  tensors = weights(config)
  if hub_style:
    tensors = {qwen2_5_vl.hub_name(name): value for name, value in tensors.items()}
  tiny.write(directory, as_published(config) if hub_style else config, tensors)


# Frames of a file, its frames a second, wanted frames a second, most frames.
SAMPLINGS = (
  (2, 25.0, 2.0, 64),
  (3, 25.0, 2.0, 64),
  (25, 25.0, 2.0, 64),
  (60, 25.0, 2.0, 64),
  (250, 29.97, 2.0, 64),
  (5000, 23.976, 2.0, 768),
  (24, 8.0, 30.0, 64),
  (99, 10.0, 1.0, 5),
)
# Frames, height and width of a video, and the smallest and largest number of pixels of all its frames.
SIZES = (
  (2, 100, 200, 4096, 25_165_824),
  (3, 100, 200, 4096, 25_165_824),
  (7, 20, 31, 4096, 25_165_824),
  (5, 20, 31, 131_072, 786_432),
  (64, 480, 640, 131_072, 786_432),
  (16, 1080, 1920, 4096, 25_165_824),
  (9, 720, 1280, 4096, 2_000_000),
)
# The sampled frames' numbers, frames a second, and the grid that the frames come to.
TEXTS = (
  ((0, 13, 25, 38), 25.0, (2, 4, 6)),
  ((0, 30, 60), 29.97, (2, 2, 4)),
  ((0, 7, 14, 21, 28, 35, 42), 8.0, (4, 2, 2)),
)


def hub_config(hidden, mlp, layers, heads, tied, depth, vision_hidden, vision_mlp, levels) -> dict:
  """config.json of a published size."""
  text = dict(
    model_type="qwen3_vl_text",
    vocab_size=151_936,
    hidden_size=hidden,
    intermediate_size=mlp,
    num_hidden_layers=layers,
    num_attention_heads=heads,
    num_key_value_heads=8,
    head_dim=128,
    hidden_act="silu",
    rms_norm_eps=1e-6,
    attention_bias=False,
    attention_dropout=0.0,
    bos_token_id=151_643,
    eos_token_id=151_645,
    max_position_embeddings=262_144,
    rope_theta=5_000_000,
    rope_scaling={"mrope_interleaved": True, "mrope_section": [24, 20, 20], "rope_type": "default"},
  )
  vision = dict(
    model_type="qwen3_vl",
    depth=depth,
    hidden_size=vision_hidden,
    intermediate_size=vision_mlp,
    out_hidden_size=hidden,
    deepstack_visual_indexes=levels,
    hidden_act="gelu_pytorch_tanh",
    in_channels=3,
    num_heads=16,
    num_position_embeddings=2304,
    patch_size=16,
    spatial_merge_size=2,
    temporal_patch_size=2,
  )
  return dict(
    model_type="qwen3_vl",
    image_token_id=151_655,
    video_token_id=151_656,
    vision_start_token_id=151_652,
    vision_end_token_id=151_653,
    tie_word_embeddings=tied,
    text_config=text,
    vision_config=vision,
  )


PUBLISHED = {
  "qwen3-vl-2b": hub_config(2048, 6144, 28, 16, True, 24, 1024, 4096, [5, 11, 17]),
  "qwen3-vl-4b": hub_config(2560, 9728, 36, 32, True, 24, 1024, 4096, [5, 11, 17]),
  "qwen3-vl-8b": hub_config(4096, 12_288, 36, 32, False, 27, 1152, 4304, [8, 16, 24]),
  "qwen3-vl-32b": hub_config(5120, 25_600, 64, 64, False, 27, 1152, 4304, [8, 16, 24]),
}

_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")
_CHAT = (
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{% for content in message['content'] %}"
  "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
  "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
  "{% else %}{{ content['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_processor(directory) -> None:
  """A tokenizer of bytes with the family's special tokens, and the files of its processor, beside a checkpoint.

  The config's vocabulary grows to the tokenizer's.
  """
  directory = pathlib.Path(directory)
  special = (*_SPECIAL, "<|video_pad|>")
  alphabet = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
  tokenizer = tokenizers.Tokenizer(tokenizer_models.BPE(alphabet, []))
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.add_special_tokens(list(special))
  fast = transformers.PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", chat_template=_CHAT
  )
  fast.save_pretrained(directory)
  ids = {f"{name}_token_id": fast.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
  ids |= {f"{name}_token_id": fast.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
  config = {**CONFIGS["gqa"], **ids}
  config["text_config"] = {**config["text_config"], "vocab_size": len(fast), "eos_token_id": fast.eos_token_id}
  (directory / "config.json").write_text(json.dumps(config))
  pixels = dict(patch_size=PATCH, temporal_patch_size=2, merge_size=2, image_mean=[0.5] * 3, image_std=[0.5] * 3)
  for name, low, high in (("preprocessor_config", 4096, 65_536), ("video_preprocessor_config", 4096, 131_072)):
    content = {**pixels, "size": {"shortest_edge": low, "longest_edge": high}}
    (directory / f"{name}.json").write_text(json.dumps(content))
