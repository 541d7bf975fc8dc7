"""Qwen3-VL: full-attention vision tower with DeepStack, Qwen3 decoder with interleaved mRoPE."""

from __future__ import annotations

from flax import linen as nn
import numpy as np

from models import sharding
from models.qwen3_vl import cost
from models.qwen3_vl import inputs as inputs_lib
from models.qwen3_vl.axes import AXES
from models.qwen3_vl.config import Qwen3VLConfig
from models.qwen3_vl.vision import make_merger
from models.qwen3_vl.vision import VisionInputs
from models.qwen3_vl.vision import VisionTower
from models.qwen_vl.model import QwenVL
from models.sensitivity import measure
from models.tower import TowerStage
from models.vision_language import Features
from models.vision_language import Inputs


class Qwen3VL(QwenVL):
  """All sizes of the family."""

  config: Qwen3VLConfig
  axes = AXES
  tower = VisionTower

  def encode(self, vision: VisionInputs, measures: tuple[str, ...] = (), stage: TowerStage | None = None) -> Features:
    x, levels, saliency, rows = self.visual.run(vision, "saliency" in measures, stage)
    found = measure(measures, self.visual.merger, x, lambda: saliency)
    return Features(self.visual.merger(x), levels, found, rows)

  @nn.nowrap
  def tower_layers(self):
    return max(self.config.vision.depth // 4, 1), self.config.vision.depth

  @nn.nowrap
  def pack(
    self,
    input_ids,
    attention_mask=None,
    pixel_values=None,
    image_grid_thw=None,
    pixel_values_videos=None,
    video_grid_thw=None,
    mm_token_type_ids=None,
  ) -> Inputs:
    """The arrays of a Hugging Face processor to fixed shapes, on the host.

    Args:
      input_ids: [B, S] with one placeholder per merged visual token; text lies between the slices of a video.
      attention_mask: [B, S], nonzero on real tokens; padding on either side. None: all are real.
      pixel_values: [patches, C] of all pictures, in the order of their placeholders.
      image_grid_thw: [pictures, 3], temporal, height and width in patches.
      pixel_values_videos: [patches, C] of all videos.
      video_grid_thw: [videos, 3].
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
      sharding.shards(self.mesh),
    )

  @nn.nowrap
  def projector(self, visual_tokens):
    vision = self.config.vision
    return make_merger(vision), (1, visual_tokens * vision.merge_unit, vision.hidden_size)

  @nn.nowrap
  def vision_flops(self, arrays):
    return cost.vision_flops(self.config.vision, np.asarray(arrays["image_grid_thw"]).tolist())
