"""A port in one file, as docs/porting.md describes: a picture becomes four visual tokens, one per quadrant.

`register()` is the one line that a port needs elsewhere.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

from flax import linen as nn
import jax
from jax.sharding import PartitionSpec as P
import numpy as np
import tokenizers
from tokenizers import models as tokenizer_models
from tokenizers import pre_tokenizers
import transformers

from models import registry
from models.checkpoints import hf
from models.checkpoints import params as params_lib
from models.checkpoints.names import Names
from models.decoder import Decoder
from models.decoder import DecoderConfig
from models.inputs import media
from models.inputs import packing
from models.inputs import synthetic
from models.inputs.media import Media
from models.inputs.media import MediaProcessor
from models.port import Port
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import VisionLanguageModel

WORDS = ("<pad>", "<end>", "<image>", "which", "digit", "is", "red", "0", "1", "2", "?")
QUADRANTS, CHANNELS = 4, 3


@dataclasses.dataclass(frozen=True)
class ToyConfig:
  """A whole model."""

  text: DecoderConfig
  image_token_id: int


def from_hf(content: dict) -> ToyConfig:
  return ToyConfig(DecoderConfig(**content["text_config"]), content["image_token_id"])


class Toy(VisionLanguageModel):
  """A picture's four mean colours, projected to the decoder's width."""

  config: ToyConfig
  names = Names(renames=(), prefixes={"": ""})
  axes = ((r"visual/kernel", P(None, "fsdp")),)

  def setup(self):
    self.visual = nn.Dense(self.config.text.hidden_size)
    self.language_model = Decoder(self.config.text, self.mesh)
    self.lm_head = make_lm_head(self.config.text.vocab_size)

  def encode(self, vision: jax.Array) -> Features:
    return Features(self.visual(vision.reshape(-1, CHANNELS)))

  @nn.nowrap
  def pack(self, input_ids, attention_mask=None, colors=None) -> Inputs:
    tokens, mask = packing.check_tokens(input_ids, attention_mask, self.config.text.vocab_size)
    count = 0 if colors is None else len(colors)
    slots = np.arange(count * QUADRANTS, dtype=np.int32).reshape(count, QUADRANTS)
    positions = [np.arange(QUADRANTS, dtype=np.int32)[:, None]] * count
    pictures = packing.Pictures(
      "image", "colors", "picture", [[QUADRANTS]] * count, slots, positions, [[[(2, 2, False)]]] * count
    )
    prompt, views = packing.plan_prompts(self.config.text, tokens, mask, {self.config.image_token_id: pictures})
    return Inputs(prompt, None if colors is None else np.asarray(colors, np.float32), views)

  @nn.nowrap
  def example(self):
    return self.pack([[self.config.image_token_id] * QUADRANTS], colors=np.zeros([1, QUADRANTS, CHANNELS]))

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens, rng=None):
    prompts = synthetic.prompts(self.config.text, self.config.image_token_id, [QUADRANTS] * len(sizes), text_tokens, rng)
    return {**prompts, "colors": synthetic.noise((len(sizes), QUADRANTS, CHANNELS), rng)}

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    return 2, 2

  @nn.nowrap
  def vision_flops(self, arrays):
    return 2.0 * np.size(arrays["colors"]) * self.config.text.hidden_size

  @nn.nowrap
  def vision_heads(self):
    return 1


class Processor(MediaProcessor):
  def __init__(self, directory, config, tokenizer):
    del directory
    super().__init__(config, tokenizer)

  def __call__(self, rows, min_pixels=None, max_pixels=None):
    pictures = [picture.resize((2, 2)) for picture in media.pictures(rows)]
    if not pictures:
      return Media({})
    colors = np.stack([np.asarray(picture, np.float32).reshape(QUADRANTS, CHANNELS) / 255 for picture in pictures])
    return Media({"colors": colors}, [self.image_token * QUADRANTS] * len(pictures))


CONFIG = {
  "model_type": "toy",
  "image_token_id": WORDS.index("<image>"),
  "text_config": dict(
    vocab_size=len(WORDS),
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    max_position_embeddings=256,
  ),
}
PORT = Port(Toy, from_hf, Processor, published={"toy-1m": from_hf(CONFIG)}, prompt_family="plain")


def register() -> None:
  registry.PORTS["toy"] = PORT


def write_checkpoint(directory: pathlib.Path) -> None:
  """Random weights, and everything that a processor needs."""
  model = Toy(from_hf(CONFIG))
  (directory / "config.json").write_text(json.dumps(CONFIG))
  hf.save(directory, model, params_lib.init(model, scale=0.3))
  tokenizer = tokenizers.Tokenizer(tokenizer_models.WordLevel({word: number for number, word in enumerate(WORDS)}, "<pad>"))
  tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
  tokenizer.add_special_tokens(["<image>", "<end>"])
  fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")
  fast.save_pretrained(directory)
  (directory / "chat_template.jinja").write_text(
    "{% for message in messages %}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}{{ '<image>' if part['type'] == 'image' else part['text'] }} {% endfor %}"
    "{% endif %}{% endfor %}"
  )
