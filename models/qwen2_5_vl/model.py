"""Qwen2.5-VL: window-attention vision tower, Qwen2 decoder with mRoPE."""

from __future__ import annotations

from flax import linen as nn
import numpy as np

from models import sharding
from models.qwen2_5_vl import cost
from models.qwen2_5_vl import inputs as inputs_lib
from models.qwen2_5_vl.axes import AXES
from models.qwen2_5_vl.config import Qwen2_5_VLConfig
from models.qwen2_5_vl.vision import PatchMerger
from models.qwen2_5_vl.vision import VisionInputs
from models.qwen2_5_vl.vision import VisionTower
from models.qwen_vl.model import QwenVL
from models.sensitivity import measure
from models.tower import TowerStage
from models.vision_language import Features
from models.vision_language import Inputs


class Qwen2_5_VL(QwenVL):
  """All sizes of the family."""

  config: Qwen2_5_VLConfig
  axes = AXES
  tower = VisionTower

  def encode(self, vision: VisionInputs, measures: tuple[str, ...] = (), stage: TowerStage | None = None) -> Features:
    x, saliency, rows = self.visual.run(vision, "saliency" in measures, stage)
    found = measure(measures, self.visual.merger, x, lambda: saliency)
    return Features(self.visual.merger(x), measures=found, rows=rows)

  @nn.nowrap
  def tower_layers(self):
    """The first block with full attention is the last that runs on everything."""
    vision = self.config.vision
    full = [number + 1 for number in sorted(vision.fullatt_block_indexes) if number + 1 < vision.depth]
    return (full or [max(vision.depth // 4, 1)])[0], vision.depth

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
  def projector(self, visual_tokens):
    vision = self.config.vision
    return PatchMerger(vision), (1, visual_tokens * vision.merge_unit, vision.hidden_size)

  @nn.nowrap
  def vision_flops(self, arrays):
    return cost.vision_flops(self.config.vision, np.asarray(arrays["image_grid_thw"]).tolist())
