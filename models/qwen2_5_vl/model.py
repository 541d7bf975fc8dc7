"""Qwen2.5-VL: window-attention vision tower, Qwen2 decoder with mRoPE."""

from __future__ import annotations

import math

from flax import linen as nn
import numpy as np

from hawk_jax import checks
from models import sharding
from models.decoder import Decoder
from models.qwen2_5_vl import cost
from models.qwen2_5_vl import inputs as inputs_lib
from models.qwen2_5_vl.axes import AXES
from models.qwen2_5_vl.config import Qwen2_5_VLConfig
from models.qwen2_5_vl.names import NAMES
from models.qwen2_5_vl.vision import VisionInputs
from models.qwen2_5_vl.vision import VisionTower
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import make_lm_head
from models.vision_language import VisionLanguageModel

# Synthetic pictures are at most this many times as long as wide.
_LONGEST = 4
_TYPICAL_TOKENS = 4096


class Qwen2_5_VL(VisionLanguageModel):
  """All sizes of the family."""

  config: Qwen2_5_VLConfig
  names = NAMES
  axes = AXES

  def setup(self):
    self.visual = VisionTower(self.config.vision, self.mesh)
    self.language_model = Decoder(self.config.text, self.mesh)
    if not self.config.text.tie_word_embeddings:
      self.lm_head = make_lm_head(self.config.text.vocab_size)

  def encode(self, vision: VisionInputs) -> Features:
    return Features(self.visual(vision))

  @nn.nowrap
  def pack(
    self,
    input_ids,
    attention_mask=None,
    pixel_values=None,
    image_grid_thw=None,
    pixel_values_videos=None,
    video_grid_thw=None,
    second_per_grid_ts=None,
    mm_token_type_ids=None,
  ) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: [B, S] with one placeholder per merged visual token.
      attention_mask: [B, S], 1 on real tokens, 0 on padding at one end of each row. None: all are real.
      pixel_values: [patches, C] of all pictures, in the order of their placeholders.
      image_grid_thw: [pictures, 3], temporal, height and width in patches.
      pixel_values_videos: [patches, C] of all videos.
      video_grid_thw: [videos, 3].
      second_per_grid_ts: [videos] seconds that a temporal patch covers; None: 1.
      mm_token_type_ids: accepted because Hugging Face processors return it; input_ids hold the same information.

    Raises:
      ValueError: arrays that do not fit one another or the model, with the argument's name.
    """
    del mm_token_type_ids
    return inputs_lib.pack(
      self.config,
      input_ids,
      attention_mask,
      pixel_values,
      image_grid_thw,
      pixel_values_videos,
      video_grid_thw,
      second_per_grid_ts,
      sharding.shards(self.mesh),
    )

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
    return inputs_lib.synthetic_batch(self.config, sizes, text_tokens, rng)

  @nn.nowrap
  def picture_size(self, visual_tokens=None):
    tokens = _TYPICAL_TOKENS if visual_tokens is None else checks.whole("visual_tokens", visual_tokens, 1)
    unit = self.config.vision.patch_size * self.config.vision.spatial_merge_size
    for rows in range(math.isqrt(tokens), 0, -1):
      if tokens % rows == 0 and tokens // rows <= _LONGEST * rows:
        return unit * rows, unit * (tokens // rows)
    raise ValueError(
      f"visual_tokens: got {tokens}, must be rows times columns of a picture at most {_LONGEST} times as long "
      f"as wide, such as {math.isqrt(tokens) ** 2}"
    )

  @nn.nowrap
  def vision_flops(self, arrays):
    return cost.vision_flops(self.config.vision, np.asarray(arrays["image_grid_thw"]).tolist())

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
