"""Qwen2.5-VL: window-attention vision tower, Qwen2 decoder with mRoPE."""

from __future__ import annotations

from flax import linen as nn
import jax
import numpy as np

from models import sharding
from models.decoder import Decoder
from models.qwen2_5_vl import inputs as inputs_lib
from models.qwen2_5_vl.config import Qwen2_5_VLConfig
from models.qwen2_5_vl.vision import VisionInputs
from models.qwen2_5_vl.vision import VisionTower
from models.qwen2_5_vl.weights import NAMES
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import View
from models.vision_language import VisionLanguageModel


class Qwen2_5_VL(VisionLanguageModel):
  """All sizes of the family."""

  config: Qwen2_5_VLConfig
  names = NAMES

  def setup(self):
    self.visual = VisionTower(self.config.vision, self.mesh)
    self.language_model = Decoder(self.config.text, self.mesh)
    if not self.config.text.tie_word_embeddings:
      self.lm_head = make_lm_head(self.config.text.vocab_size)

  def encode(self, vision: VisionInputs) -> jax.Array:
    return self.visual(vision)

  @nn.nowrap
  def pack(self, input_ids, attention_mask=None, pixel_values=None, image_grid_thw=None, pixel_values_videos=None,
           video_grid_thw=None, second_per_grid_ts=None, mm_token_type_ids=None) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: [B, S] with one placeholder a merged visual token.
      attention_mask: [B, S], nonzero on real tokens; padding on either side. None: all real.
      pixel_values: [patches, C] of all pictures, in the order of their placeholders.
      image_grid_thw: [pictures, 3], temporal, height and width in patches.
      pixel_values_videos: [patches, C] of all videos.
      video_grid_thw: [videos, 3].
      second_per_grid_ts: [videos] seconds a temporal patch covers; None: 1.
      mm_token_type_ids: accepted because Hugging Face processors return it; input_ids say the same.

    Raises:
      ValueError: arrays that do not fit one another or the model, with the argument's name.
    """
    del mm_token_type_ids
    return inputs_lib.pack(self.config, input_ids, attention_mask, pixel_values, image_grid_thw, pixel_values_videos,
                           video_grid_thw, second_per_grid_ts, sharding.shards(self.mesh))

  @nn.nowrap
  def example(self) -> Inputs:
    vision = self.config.vision
    side = vision.spatial_merge_size
    return self.pack(
        input_ids=[[self.config.image_token_id]],
        pixel_values=np.zeros([side * side, vision.patch_dim], np.float32),
        image_grid_thw=[[1, side, side]])

  @nn.nowrap
  def views(self, image_grid_thw=(), video_grid_thw=(), **batch) -> list[View]:
    """A view a picture, and after them one for every temporal slice of the videos, each numbered as a picture."""
    del batch
    merge = self.config.vision.spatial_merge_size
    grids = [(height, width) for some in (image_grid_thw, video_grid_thw) for frames, height, width in some
             for _ in range(frames)]
    return [View(number, int(height) // merge, int(width) // merge) for number, (height, width) in enumerate(grids)]

  @nn.nowrap
  def stored_shapes(self) -> dict[str, tuple[int, ...]]:
    vision = self.config.vision
    return {"visual.patch_embed.proj.weight": (vision.hidden_size, vision.in_channels, vision.temporal_patch_size,
                                               vision.patch_size, vision.patch_size)}
