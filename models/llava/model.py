"""LLaVA-1.5 and LLaVA-NeXT: CLIP vision tower, projector, and a LLaMA, Mistral or Qwen2 decoder."""

from __future__ import annotations

import dataclasses

from einops import rearrange
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models import sharding
from models.decoder import Decoder
from models.inputs import synthetic
from models.inputs import tiles
from models.llava import cost
from models.llava import inputs as inputs_lib
from models.llava.axes import AXES
from models.llava.config import LlavaConfig
from models.llava.vision import VisionTower
from models.sensitivity import measure
from models.tower import TowerStage
from models.vision_encoder import NAMES
from models.vision_encoder import Projector
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import VisionLanguageModel


class Llava(VisionLanguageModel):
  """LLaVA-1.5: every picture is one tile."""

  config: LlavaConfig
  names = NAMES
  axes = AXES
  measures = ("saliency", "sensitivity")

  def setup(self):
    self.vision_tower = VisionTower(self.config.vision, self.mesh)
    self.multi_modal_projector = Projector(self.config.text.hidden_size, self.config.projector_bias, self.mesh)
    self.language_model = Decoder(self.config.text, self.mesh)
    if not self.config.text.tie_word_embeddings:
      self.lm_head = make_lm_head(self.config.text.vocab_size)

  def encode(self, vision: jax.Array, measures: tuple[str, ...] = (), stage: TowerStage | None = None) -> Features:
    """[P, C, H, W] tiles to [P * T, D] features, T tokens per tile."""
    project = lambda states: rearrange(self.multi_modal_projector(self.vision_tower.choose(states)), "P T D -> (P T) D")
    if stage is None:
      states, rows = self.vision_tower.states(vision), None
    else:
      states, rows = self.vision_tower.staged(vision, stage, project)
    x = self.vision_tower.choose(states)
    found = measure(measures, self.multi_modal_projector, x, lambda: self.vision_tower.saliency(states))
    return Features(project(states), measures=found, rows=rows)

  @nn.nowrap
  def tower_layers(self):
    blocks = max(self.config.vision.feature_layers)
    return (max(blocks // 4, 1), blocks) if blocks > 1 else None

  @nn.nowrap
  def tower_cells(self, vision):
    """Every tile is a cell."""
    return np.repeat(np.arange(len(vision)), self.config.vision.tokens), len(vision)

  @nn.nowrap
  def pack(self, input_ids, attention_mask=None, pixel_values=None) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: [B, S] with one placeholder per visual token.
      attention_mask: [B, S], 1 on real tokens, 0 on padding at one end of each row. None: all are real.
      pixel_values: [pictures, C, H, W], in the order of their placeholders.

    Raises:
      ValueError: arrays that do not fit one another or the model, with the argument's name.
    """
    return inputs_lib.pack(self.config, input_ids, attention_mask, pixel_values, shards=sharding.shards(self.mesh))

  @nn.nowrap
  def example(self) -> Inputs:
    vision = self.config.vision
    return self.pack(
      input_ids=[[self.config.image_token_id] * vision.tokens], pixel_values=np.zeros((1,) + vision.tile_shape, np.float32)
    )

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens, rng=None):
    """Every picture becomes one tile, whatever its size."""
    tokens, shape = self.config.vision.tokens, (len(sizes),) + self.config.vision.tile_shape
    prompts = synthetic.prompts(self.config.text, self.config.image_token_id, [tokens] * len(sizes), text_tokens, rng)
    return {**prompts, "pixel_values": synthetic.noise(shape, rng)}

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    if visual_tokens not in (None, self.config.vision.tokens):
      raise ValueError(f"visual_tokens: got {visual_tokens}, every picture of this model has {self.config.vision.tokens}")
    return self.config.vision.image_size, self.config.vision.image_size

  @nn.nowrap
  def vision_flops(self, arrays):
    return cost.vision_flops(self.config, len(arrays["pixel_values"]))

  @nn.nowrap
  def projector(self, visual_tokens):
    projector = Projector(self.config.text.hidden_size, self.config.projector_bias)
    return projector, (1, visual_tokens, self.config.vision.features)

  @nn.nowrap
  def vision_heads(self):
    return self.config.vision.num_attention_heads

  @nn.nowrap
  def stored_shapes(self):
    return {"vision_tower.embeddings.patch_embedding.weight": self.config.vision.patch_shape}


class LlavaNext(Llava):
  """LLaVA-NeXT: several tiles per picture, and a newline after every row of the tiled view."""

  def setup(self):
    super().setup()
    self.image_newline = self.param("image_newline", nn.initializers.normal(), (self.config.text.hidden_size,))

  def encode(self, vision: jax.Array, measures: tuple[str, ...] = (), stage: TowerStage | None = None) -> Features:
    """[P, C, H, W] tiles to [P * T + 1, D] features, T tokens per tile; the last row is the newline, which measures 0."""
    features = super().encode(vision, measures, stage)
    rows = None if features.rows is None else jnp.append(features.rows, len(features.tokens))
    measured = {name: jnp.append(values, 0.0) for name, values in features.measures.items()}
    return dataclasses.replace(self.as_features(features.tokens), measures=measured, rows=rows)

  def as_features(self, tokens):
    return Features(jnp.concatenate([tokens, self.image_newline[None].astype(tokens.dtype)]))

  @nn.nowrap
  def tower_cells(self, vision):
    cells, number = super().tower_cells(vision)
    return np.append(cells, -1), number

  @nn.nowrap
  def pack(self, input_ids, attention_mask=None, pixel_values=None, image_sizes=None) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: as in `Llava.pack`; newlines have placeholders like patches.
      attention_mask: as in `Llava.pack`.
      pixel_values: [pictures, tiles, C, H, W], in the order of their placeholders; pictures of fewer tiles end in zeros.
      image_sizes: [pictures, 2], height and width of each picture before it was scaled.

    Raises:
      ValueError: arrays that do not fit one another or the model, with the argument's name.
    """
    return inputs_lib.pack(self.config, input_ids, attention_mask, pixel_values, image_sizes, sharding.shards(self.mesh))

  @nn.nowrap
  def example(self) -> Inputs:
    vision = self.config.vision
    size = (vision.image_size, vision.image_size)
    layout = inputs_lib.tiled_layout(self.config, *size)
    return self.pack(
      input_ids=[[self.config.image_token_id] * len(layout.slots)],
      pixel_values=np.zeros((1, layout.tiles) + vision.tile_shape, np.float32),
      image_sizes=[size],
    )

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens, rng=None):
    layouts = [inputs_lib.tiled_layout(self.config, *size) for size in sizes]
    counts = [layout.tiles for layout in layouts]
    shape = (len(sizes), max(counts)) + self.config.vision.tile_shape
    prompts = synthetic.prompts(
      self.config.text, self.config.image_token_id, [len(layout.slots) for layout in layouts], text_tokens, rng
    )
    return {
      **prompts,
      "pixel_values": tiles.without_padding(synthetic.noise(shape, rng), counts),
      "image_sizes": np.asarray(sizes),
    }

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    sizes = {len(inputs_lib.tiled_layout(self.config, *size).slots): size for size in self.config.grid_pinpoints}
    tokens = max(sizes) if visual_tokens is None else visual_tokens
    if tokens not in sizes:
      raise ValueError(f"visual_tokens: got {tokens}, pictures as large as a grid pinpoint have {sorted(sizes)}")
    return sizes[tokens]

  @nn.nowrap
  def vision_flops(self, arrays):
    layouts = [inputs_lib.tiled_layout(self.config, *map(int, size)) for size in arrays["image_sizes"]]
    return cost.vision_flops(self.config, sum(layout.tiles for layout in layouts))
