"""The model that the Qwen-VL families share, but for their towers."""

from __future__ import annotations

from typing import Any, ClassVar

from flax import linen as nn
import numpy as np

from models.decoder import Decoder
from models.qwen_vl import grids
from models.qwen_vl.config import QwenVLConfig
from models.qwen_vl.names import NAMES
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import VisionLanguageModel


class QwenVL(VisionLanguageModel):
  """Base of the families.

  Attributes:
    config: shapes.
    tower: the family's vision tower, made from a `VisionConfig` and a mesh.
  """

  config: QwenVLConfig
  tower: ClassVar[Any]
  names = NAMES
  measures = ("saliency", "sensitivity")

  def setup(self):
    self.visual = self.tower(self.config.vision, self.mesh)
    self.language_model = Decoder(self.config.text, self.mesh)
    if not self.config.text.tie_word_embeddings:
      self.lm_head = make_lm_head(self.config.text.vocab_size)

  @nn.nowrap
  def example(self) -> Inputs:
    vision = self.config.vision
    side = vision.spatial_merge_size
    return self.pack(
      input_ids=[[self.config.image_token_id]],
      pixel_values=np.zeros([side * side, vision.patch_dim], np.float32),
      image_grid_thw=[[1, side, side]],
    )

  @nn.nowrap
  def synthetic_batch(self, sizes, text_tokens, rng=None):
    return grids.synthetic_batch(self.config, sizes, text_tokens, rng)

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    return grids.picture_size(self.config, visual_tokens)

  @nn.nowrap
  def tower_cells(self, vision):
    """Every temporal slice is a cell."""
    slots = np.asarray(vision.slice_slots)
    cells = np.full(vision.slot_places.size, -1)
    for number, members in enumerate(slots):
      cells[members[members >= 0]] = number
    return cells, len(slots)

  @nn.nowrap
  def vision_heads(self):
    return self.config.vision.num_heads

  @nn.nowrap
  def stored_shapes(self):
    vision = self.config.vision
    return {
      "visual.patch_embed.proj.weight": (
        vision.hidden_size,
        vision.in_channels,
        vision.temporal_patch_size,
        vision.patch_size,
        vision.patch_size,
      )
    }
