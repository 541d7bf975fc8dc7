"""The embedded models: real architectures at laptop size, kept in the repository in Hugging Face layout.

A port that is to be trained on the digits task needs one entry in `ARCHITECTURES`.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import json
import pathlib
from typing import Any

from einops import rearrange
import numpy as np
import tokenizers
from tokenizers import decoders
from tokenizers import models as tokenizer_models
from tokenizers import pre_tokenizers
from tokenizers import trainers
import transformers

from experiments.digits import task
from experiments.running import files
from models.llava import config as llava_config
from models.llava.model import Llava
from models.qwen2_5_vl import config as qwen_config
from models.qwen2_5_vl.model import Qwen2_5_VL
from models.vision_language import VisionLanguageModel

DIRECTORY = pathlib.Path(__file__).parents[1] / "embedded_models"
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclasses.dataclass(frozen=True)
class Architecture:
  """A port at laptop size.

  Attributes:
    special_tokens: of the tokenizer; a token's id is its index.
    image_token: placeholder of a visual token.
    start_token: begins a text, and pads.
    end_token: ends an answer.
    roles: names of the speakers, as the chat template writes them.
    chat_template: Jinja source.
    config: function from the vocabulary size to the content of config.json.
    model: function from that content to the model.
    pixels: function from [B, 192, 192, 3] uint8 pictures to the arrays of the port's image processor.
    preprocessor: content of preprocessor_config.json.
    visual_tokens: visual tokens of a 192 x 192 picture.
  """

  special_tokens: tuple[str, ...]
  image_token: str
  start_token: str
  end_token: str
  roles: tuple[str, ...]
  chat_template: str
  config: Callable[[int], dict[str, Any]]
  model: Callable[[dict[str, Any]], Any]
  pixels: Callable[[np.ndarray], dict[str, np.ndarray]]
  preprocessor: dict[str, Any]
  visual_tokens: int


_DECODER = {
  "hidden_size": 128,
  "intermediate_size": 384,
  "num_hidden_layers": 4,
  "num_attention_heads": 8,
  "num_key_value_heads": 4,
}


def normalize(pictures: np.ndarray) -> np.ndarray:
  """[..., 3] uint8 to float32, rescaled and normalized as image processors do."""
  scale = 1 / (255 * np.asarray(IMAGE_STD))
  return (pictures * scale - np.asarray(IMAGE_MEAN) / np.asarray(IMAGE_STD)).astype(np.float32)


_PATCH = 8
_QWEN_TOKENS = (
  "<|endoftext|>",
  "<|im_start|>",
  "<|im_end|>",
  "<|vision_start|>",
  "<|vision_end|>",
  "<|image_pad|>",
  "<|video_pad|>",
)
_QWEN_CHAT = (
  "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
  "{% if message['content'] is string %}{{ message['content'] }}"
  "{% else %}{% for content in message['content'] %}"
  "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
  "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
  "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
  "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _qwen_config(vocab_size: int) -> dict[str, Any]:
  return {
    "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "model_type": "qwen2_5_vl",
    "image_token_id": _QWEN_TOKENS.index("<|image_pad|>"),
    "video_token_id": _QWEN_TOKENS.index("<|video_pad|>"),
    "vision_start_token_id": _QWEN_TOKENS.index("<|vision_start|>"),
    "vision_end_token_id": _QWEN_TOKENS.index("<|vision_end|>"),
    "tie_word_embeddings": True,
    "text_config": {
      "model_type": "qwen2_5_vl_text",
      "vocab_size": vocab_size,
      **_DECODER,
      "max_position_embeddings": 8192,
      "rms_norm_eps": 1e-6,
      "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
      "bos_token_id": _QWEN_TOKENS.index("<|endoftext|>"),
      "eos_token_id": _QWEN_TOKENS.index("<|im_end|>"),
      "pad_token_id": _QWEN_TOKENS.index("<|endoftext|>"),
    },
    "vision_config": {
      "model_type": "qwen2_5_vl_vision",
      "depth": 4,
      "hidden_size": 96,
      "intermediate_size": 192,
      "num_heads": 4,
      "in_channels": 3,
      "out_hidden_size": 128,
      "patch_size": _PATCH,
      "spatial_merge_size": 2,
      "temporal_patch_size": 2,
      "window_size": 8 * _PATCH,
      "fullatt_block_indexes": [2],
      "tokens_per_second": 2,
    },
  }


def _qwen_pixels(pictures: np.ndarray) -> dict[str, np.ndarray]:
  side = pictures.shape[1] // _PATCH
  patches = rearrange(normalize(pictures), "B (h i p) (w j q) c -> B h w i j c p q", p=_PATCH, q=_PATCH, i=2, j=2)
  patches = np.repeat(patches[..., None, :, :], 2, axis=-3)  # a picture is two equal frames
  return {
    "pixel_values": patches.reshape(-1, 3 * 2 * _PATCH * _PATCH),
    "image_grid_thw": np.tile([1, side, side], (len(pictures), 1)),
  }


_TILE, _TILE_PATCH = 192, 16
_LLAVA_TOKENS = ("<s>", "</s>", "<image>")
_LLAVA_CHAT = (
  "<s>{% for message in messages %}{{ message['role'].upper() }}: "
  "{% if message['content'] is string %}{{ message['content'] }}"
  "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}<image>\n{% endfor %}"
  "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
  "{% endif %}{{ '</s>' if message['role'] == 'assistant' else ' ' }}{% endfor %}"
  "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)


def _llava_config(vocab_size: int) -> dict[str, Any]:
  return {
    "architectures": ["LlavaForConditionalGeneration"],
    "model_type": "llava",
    "image_token_index": _LLAVA_TOKENS.index("<image>"),
    "image_seq_length": (_TILE // _TILE_PATCH) ** 2,
    "projector_hidden_act": "gelu",
    "vision_feature_layer": -2,
    "vision_feature_select_strategy": "default",
    "tie_word_embeddings": True,
    "text_config": {
      "model_type": "llama",
      "vocab_size": vocab_size,
      **_DECODER,
      "max_position_embeddings": 4096,
      "rms_norm_eps": 1e-5,
      "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
      "bos_token_id": _LLAVA_TOKENS.index("<s>"),
      "eos_token_id": _LLAVA_TOKENS.index("</s>"),
      "pad_token_id": _LLAVA_TOKENS.index("<s>"),
      "tie_word_embeddings": True,
    },
    "vision_config": {
      "model_type": "clip_vision_model",
      "hidden_size": 128,
      "intermediate_size": 256,
      "num_hidden_layers": 5,
      "num_attention_heads": 4,
      "image_size": _TILE,
      "patch_size": _TILE_PATCH,
      "projection_dim": 128,
      "hidden_act": "quick_gelu",
    },
  }


ARCHITECTURES = {
  "qwen2_5_vl": Architecture(
    special_tokens=_QWEN_TOKENS,
    image_token="<|image_pad|>",
    start_token="<|endoftext|>",
    end_token="<|im_end|>",
    roles=("user", "assistant", "system"),
    chat_template=_QWEN_CHAT,
    config=_qwen_config,
    model=lambda config: Qwen2_5_VL(qwen_config.from_hf(config)),
    pixels=_qwen_pixels,
    preprocessor={
      "image_processor_type": "Qwen2VLImageProcessor",
      "patch_size": _PATCH,
      "merge_size": 2,
      "temporal_patch_size": 2,
      "min_pixels": 4 * (2 * _PATCH) ** 2,
      "max_pixels": 1024 * (2 * _PATCH) ** 2,
      "image_mean": IMAGE_MEAN,
      "image_std": IMAGE_STD,
    },
    visual_tokens=144,
  ),
  "llava": Architecture(
    special_tokens=_LLAVA_TOKENS,
    image_token="<image>",
    start_token="<s>",
    end_token="</s>",
    roles=("USER", " ASSISTANT", "SYSTEM", ":"),
    chat_template=_LLAVA_CHAT,
    config=_llava_config,
    model=lambda config: Llava(llava_config.from_hf(config)),
    pixels=lambda pictures: {"pixel_values": rearrange(normalize(pictures), "B h w c -> B c h w")},
    preprocessor={
      "image_processor_type": "CLIPImageProcessor",
      "do_convert_rgb": True,
      "size": {"shortest_edge": _TILE},
      "crop_size": {"height": _TILE, "width": _TILE},
      "resample": 3,
      "image_mean": IMAGE_MEAN,
      "image_std": IMAGE_STD,
    },
    visual_tokens=(_TILE // _TILE_PATCH) ** 2,
  ),
}


@dataclasses.dataclass(frozen=True)
class Student:
  """A model to be trained, and how it is asked about a picture.

  Attributes:
    architecture: the port.
    tokenizer: its tokenizer.
    model: the module, without parameters.
    before: token ids of the chat up to the question, with one placeholder for each visual token.
    after: text of the chat between the question and the answer.
  """

  architecture: Architecture
  tokenizer: tokenizers.Tokenizer
  model: VisionLanguageModel
  before: list[int]
  after: str


def make_student(name: str, heads: int | None = None) -> Student:
  """The student with the architecture of this name in `ARCHITECTURES`.

  Args:
    name: of the architecture.
    heads: query heads of each decoder layer; None: those of the architecture.

  Raises:
    ValueError: a number of heads that does not divide the width into pairs, or that the key/value heads do not divide.
  """
  architecture = ARCHITECTURES[name]
  if heads is not None:
    own = architecture.config
    architecture = dataclasses.replace(architecture, config=lambda vocab_size: _with_heads(own(vocab_size), heads))
  tokenizer = make_tokenizer(architecture)
  chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "QUESTION"}]}]
  fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer)
  text = fast.apply_chat_template(chat, chat_template=architecture.chat_template, tokenize=False, add_generation_prompt=True)
  before, after = text.split("QUESTION")
  before = before.replace(architecture.image_token, architecture.image_token * architecture.visual_tokens)
  model = architecture.model(architecture.config(tokenizer.get_vocab_size()))
  return Student(architecture, tokenizer, model, tokenizer.encode(before).ids, after)


def _with_heads(config: dict[str, Any], heads: int) -> dict[str, Any]:
  """A config.json with another number of query heads, half as many key/value heads, and the same width."""
  text = config["text_config"]
  width = text["hidden_size"]
  if heads < 2 or heads % 2 or width % (4 * heads):
    raise ValueError(f"heads: got {heads}, must be even and divide a quarter of the width, {width // 4}")
  text = {**text, "num_attention_heads": heads, "num_key_value_heads": heads // 2}
  rope, half = text["rope_parameters"], width // heads // 2
  if "mrope_section" in rope:
    time = half // 4
    sections = [time, (half - time + 1) // 2, (half - time) // 2]
    text["rope_parameters"] = {**rope, "mrope_section": sections}
  return {**config, "text_config": text}


def make_tokenizer(architecture: Architecture) -> tokenizers.Tokenizer:
  """A byte-level BPE tokenizer in which every word of the task is one token, and all other text can be spelled."""
  sides, numbers = ("left", "right"), [str(number) for number in range(10)]
  corpus = [*task.COLORS, *numbers, *architecture.roles, "\n"]
  for templates in task.TEMPLATES.values():
    for template in templates:
      corpus += [
        template.format(color=color, side=side, digit=digit) for color in task.COLORS for side in sides for digit in numbers
      ]
  tokenizer = tokenizers.Tokenizer(tokenizer_models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(
    corpus,
    trainers.BpeTrainer(
      vocab_size=768,
      special_tokens=list(architecture.special_tokens),
      initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False,
    ),
  )
  return tokenizer


def write_assets(directory: pathlib.Path, student: Student) -> None:
  """Writes a student's checkpoint in Hugging Face layout, except for the weights."""
  architecture, tokenizer = student.architecture, student.tokenizer
  directory.mkdir(parents=True, exist_ok=True)
  special, start, end = architecture.special_tokens, architecture.start_token, architecture.end_token
  contents = {
    "config.json": architecture.config(tokenizer.get_vocab_size()),
    "generation_config.json": {"eos_token_id": special.index(end), "pad_token_id": special.index(start)},
    "preprocessor_config.json": architecture.preprocessor,
    "tokenizer_config.json": {
      "tokenizer_class": "PreTrainedTokenizerFast",
      "eos_token": end,
      "pad_token": start,
      "additional_special_tokens": list(special),
      "clean_up_tokenization_spaces": False,
    },
  }
  for name, content in contents.items():
    files.write(directory / name, json.dumps(content, indent=2) + "\n")
  files.write(directory / "chat_template.jinja", architecture.chat_template)
  files.write(directory / "tokenizer.json", tokenizer.to_str(pretty=True))
