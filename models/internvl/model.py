"""InternVL3 and InternVL3.5: InternViT on tiles, projector, and a Qwen2 or Qwen3 decoder."""

from __future__ import annotations

import math

from einops import rearrange
from flax import linen as nn
import jax
import numpy as np

from models import sharding
from models.decoder import Decoder
from models.inputs import synthetic
from models.internvl import cost
from models.internvl import inputs as inputs_lib
from models.internvl.axes import AXES
from models.internvl.config import InternVLConfig
from models.internvl.names import NAMES
from models.internvl.vision import layer_norm
from models.internvl.vision import MERGE
from models.internvl.vision import VisionTower
from models.sensitivity import measure
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import VisionLanguageModel


class Projector(nn.Module):
  """linear_2(gelu(linear_1(layer_norm(x)))), with the exact gelu."""

  hidden_size: int
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.layer_norm = layer_norm(1e-5)
    self.linear_1, self.linear_2 = nn.Dense(self.hidden_size), nn.Dense(self.hidden_size)

  def __call__(self, x):
    x = sharding.width(self.linear_1(self.layer_norm(x)), self.mesh)
    return self.linear_2(nn.gelu(x, approximate=False))


class InternVL(VisionLanguageModel):
  """All sizes of the family."""

  config: InternVLConfig
  names = NAMES
  axes = AXES
  measures = ("saliency", "sensitivity")

  def setup(self):
    self.vision_tower = VisionTower(self.config.vision, self.mesh)
    self.multi_modal_projector = Projector(self.config.text.hidden_size, self.mesh)
    self.language_model = Decoder(self.config.text, self.mesh)
    if not self.config.text.tie_word_embeddings:
      self.lm_head = make_lm_head(self.config.text.vocab_size)

  def encode(self, vision: jax.Array, measures: tuple[str, ...] = ()) -> Features:
    """[P, C, H, W] tiles to [P * T, D] features, T tokens per tile."""
    states = self.vision_tower.states(vision)
    x = self.vision_tower.choose(states)
    tokens = rearrange(self.multi_modal_projector(x), "P T D -> (P T) D")
    found = measure(measures, self.multi_modal_projector, x, lambda: self.vision_tower.saliency(states))
    return Features(tokens, measures=found)

  @nn.nowrap
  def pack(self, input_ids, attention_mask=None, pixel_values=None, tile_grids=None, videos=None) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: [B, S] with one placeholder per visual token.
      attention_mask: [B, S], nonzero on real tokens; padding on either side. None: all are real.
      pixel_values: [tiles, C, H, W] of all pictures and frames, in the order of their placeholders.
      tile_grids: [pictures, 2], rows and columns of tiles of each picture or frame, one tile with the whole picture not
        counted; drawings need it. None: each tile counts as a picture.
      videos: [pictures], the number of the video that a frame belongs to, -1 for pictures; the selector evs needs it. None:
        all are pictures.

    Raises:
      ValueError: arrays that do not fit one another or the model, with the argument's name.
    """
    shards = sharding.shards(self.mesh)
    return inputs_lib.pack(self.config, input_ids, attention_mask, pixel_values, tile_grids, videos, shards)

  @nn.nowrap
  def example(self) -> Inputs:
    vision = self.config.vision
    return self.pack(
      input_ids=[[self.config.image_token_id] * vision.tokens], pixel_values=np.zeros((1, *vision.tile_shape), np.float32)
    )

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens, rng=None):
    config, vision = self.config, self.config.vision
    tiles = [inputs_lib.tiles_of(*inputs_lib.grid(*size, vision.image_size)) for size in sizes]
    prompts = synthetic.prompts(
      config.text,
      config.image_token_id,
      [vision.tokens * count for count in tiles],
      text_tokens,
      rng,
      before=[config.vision_start_token_id],
      after=[config.vision_end_token_id],
      special=config.eos_token_ids,
    )
    return {**prompts, "pixel_values": synthetic.noise((sum(tiles), *vision.tile_shape), rng)}

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    vision = self.config.vision
    sizes = {}
    for tiles in range(inputs_lib.LEAST_TILES, inputs_lib.MOST_TILES + 1):
      rows = next(rows for rows in range(math.isqrt(tiles), 0, -1) if tiles % rows == 0)
      grid = rows, tiles // rows
      sizes[vision.tokens * inputs_lib.tiles_of(*grid)] = tuple(vision.image_size * count for count in grid)
    tokens = max(sizes) if visual_tokens is None else visual_tokens
    if tokens not in sizes:
      raise ValueError(f"visual_tokens: got {tokens}, pictures of whole tiles have {', '.join(map(str, sizes))}")
    return sizes[tokens]

  @nn.nowrap
  def projector(self, visual_tokens):
    return Projector(self.config.text.hidden_size), (1, visual_tokens, MERGE**2 * self.config.vision.hidden_size)

  @nn.nowrap
  def vision_flops(self, arrays):
    return cost.vision_flops(self.config, len(arrays["pixel_values"]))

  @nn.nowrap
  def vision_heads(self):
    return self.config.vision.num_attention_heads

  @nn.nowrap
  def stored_shapes(self):
    vision = self.config.vision
    return {
      "vision_tower.embeddings.patch_embeddings.projection.weight": (
        vision.hidden_size,
        vision.num_channels,
        vision.patch_size,
        vision.patch_size,
      )
    }
