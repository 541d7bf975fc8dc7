"""The embedded models: real architectures at laptop size, kept in the repository in Hugging Face layout.

One entry of `ARCHITECTURES` is all that training needs to know of a port.
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

from experiments import digits
from models.qwen2_5_vl import config as qwen_config
from models.qwen2_5_vl.model import Qwen2_5_VL

DIRECTORY = pathlib.Path(__file__).parent / "embedded_models"
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>",
                  "<|video_pad|>")
IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% elif content['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% elif 'text' in content %}{{ content['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}")


@dataclasses.dataclass(frozen=True)
class Architecture:
  """What training and saving need to know of a port.

  Attributes:
    config: vocabulary size to the checkpoint's config.json.
    model: that dict to the model.
    pixels: [B, 192, 192, 3] uint8 pictures to the arrays of the port's image processor.
    preprocessor: preprocessor_config.json.
    visual_tokens: of a 192 x 192 picture.
  """

  config: Callable[[int], dict[str, Any]]
  model: Callable[[dict[str, Any]], Any]
  pixels: Callable[[np.ndarray], dict[str, np.ndarray]]
  preprocessor: dict[str, Any]
  visual_tokens: int


def _token_id(token: str) -> int:
  return SPECIAL_TOKENS.index(token)


def normalize(pictures: np.ndarray) -> np.ndarray:
  """[..., 3] uint8 to float32, as image processors rescale and normalize."""
  scale = 1 / (255 * np.asarray(IMAGE_STD))
  return (pictures * scale - np.asarray(IMAGE_MEAN) / np.asarray(IMAGE_STD)).astype(np.float32)


_PATCH = 8


def _qwen_config(vocab_size: int) -> dict[str, Any]:
  return {
      "architectures": ["Qwen2_5_VLForConditionalGeneration"],
      "model_type": "qwen2_5_vl",
      "image_token_id": _token_id("<|image_pad|>"),
      "video_token_id": _token_id("<|video_pad|>"),
      "vision_start_token_id": _token_id("<|vision_start|>"),
      "vision_end_token_id": _token_id("<|vision_end|>"),
      "tie_word_embeddings": True,
      "text_config": {
          "model_type": "qwen2_5_vl_text",
          "vocab_size": vocab_size,
          "hidden_size": 128,
          "intermediate_size": 384,
          "num_hidden_layers": 4,
          "num_attention_heads": 8,
          "num_key_value_heads": 4,
          "max_position_embeddings": 8192,
          "rms_norm_eps": 1e-6,
          "rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [2, 3, 3]},
          "bos_token_id": _token_id("<|endoftext|>"),
          "eos_token_id": _token_id("<|im_end|>"),
          "pad_token_id": _token_id("<|endoftext|>"),
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


ARCHITECTURES = {
    "qwen2_5_vl": Architecture(
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
        visual_tokens=144),
}


def make_tokenizer() -> tokenizers.Tokenizer:
  """A byte-level BPE tokenizer that knows the task's words and can spell everything else."""
  sides, numbers = ("left", "right"), [str(number) for number in range(10)]
  corpus = [*digits.COLORS, *numbers, "user", "assistant", "system", "\n"]
  for templates in digits.TEMPLATES.values():
    for template in templates:
      corpus += [template.format(color=color, side=side, digit=digit)
                 for color in digits.COLORS for side in sides for digit in numbers]
  tokenizer = tokenizers.Tokenizer(tokenizer_models.BPE())
  tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
  tokenizer.decoder = decoders.ByteLevel()
  tokenizer.train_from_iterator(corpus, trainers.BpeTrainer(
      vocab_size=768, special_tokens=list(SPECIAL_TOKENS), initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
      show_progress=False))
  return tokenizer


def write_assets(directory: pathlib.Path, architecture: Architecture, tokenizer: tokenizers.Tokenizer) -> None:
  """Writes all of a Hugging Face checkpoint but the weights."""
  directory.mkdir(parents=True, exist_ok=True)
  end, start = "<|im_end|>", "<|endoftext|>"
  files = {
      "config.json": architecture.config(tokenizer.get_vocab_size()),
      "generation_config.json": {"eos_token_id": _token_id(end), "pad_token_id": _token_id(start)},
      "preprocessor_config.json": architecture.preprocessor,
      "tokenizer_config.json": {
          "tokenizer_class": "PreTrainedTokenizerFast", "eos_token": end, "pad_token": start,
          "additional_special_tokens": list(SPECIAL_TOKENS), "clean_up_tokenization_spaces": False},
  }
  for name, content in files.items():
    (directory / name).write_text(json.dumps(content, indent=2) + "\n")
  (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE)
  tokenizer.save(str(directory / "tokenizer.json"))
