"""What tests of every port need: a new port adds its subjects here, and nothing to the tests themselves."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import numpy as np

from models import registry
from models.internvl import inputs as internvl_inputs
from models.llava import inputs as llava_inputs
from models.llava_onevision import inputs as llava_onevision_inputs
from tests.reference import internvl
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl
from tests.reference import qwen3_vl_moe


@dataclasses.dataclass(frozen=True)
class Subject:
  """A tiny checkpoint of a port, and what to ask it.

  Attributes:
    reference: module with configs, prompts and weights.
    config_name: of its `CONFIGS`.
    prompts: of its `PROMPTS`; several pictures in one, none in another.
    visual_ids: the placeholders.
    arrays: [height, width] pixels to the raw arrays of a prompt with such a picture.
    vision_buckets: the most shapes that pictures of 40 sizes come in.
    vision_end_id: or None.
    im_end_id: or None.
    visual_tokens: of a synthetic picture; None where all pictures of a model have the same size.
  """

  reference: Any
  config_name: str
  prompts: Sequence[str]
  visual_ids: tuple[int, ...]
  arrays: Callable[[int, int], dict[str, np.ndarray]]
  vision_buckets: int
  vision_end_id: int | None = None
  im_end_id: int | None = None
  visual_tokens: int | None = None

  @property
  def query(self) -> dict[str, Any]:
    return dict(visual_ids=self.visual_ids, vision_end_id=self.vision_end_id, im_end_id=self.im_end_id)


def _config(reference, config_name):
  return registry.build("tiny", reference.CONFIGS[config_name]).config


def _qwen_picture(height, width, patch=14):
  grid = np.array([[1, *(2 * max(side // (2 * patch), 1) for side in (height, width))]])
  count = int(grid.prod())
  tokens = [qwen2_5_vl.VISION_START] + [qwen2_5_vl.IMAGE] * (count // 4) + [qwen2_5_vl.VISION_END, 5, 6]
  return dict(
    input_ids=np.array([tokens]), pixel_values=np.ones([count, 3 * 2 * patch * patch], np.float32), image_grid_thw=grid
  )


def _llava_picture(height, width):
  del height, width
  return dict(input_ids=np.array([[llava.IMAGE] * 36 + [5, 6]]), pixel_values=np.ones([1, 3, 42, 42], np.float32))


def _llava_next_picture(height, width):
  layout = llava_inputs.tiled_layout(_config(llava, "next"), height, width)
  return dict(
    input_ids=np.array([[llava.IMAGE] * len(layout.slots) + [5, 6]]),
    image_sizes=np.array([[height, width]]),
    pixel_values=np.ones([1, layout.tiles, 3, 42, 42], np.float32),
  )


def _internvl_picture(height, width):
  grid = internvl_inputs.grid(height, width, internvl.TILE)
  tiles = internvl_inputs.tiles_of(*grid)
  tokens = [internvl.START] + [internvl.IMAGE] * internvl.TILE_TOKENS * tiles + [internvl.END, 5, 6]
  return dict(
    input_ids=np.array([tokens]),
    pixel_values=np.ones([tiles, 3, internvl.TILE, internvl.TILE], np.float32),
    tile_grids=[grid],
  )


def _llava_onevision_picture(height, width):
  layout = llava_onevision_inputs.picture_layout(_config(llava_onevision, "untied"), height, width)
  return dict(
    input_ids=np.array([[llava_onevision.IMAGE] * layout.count + [5, 6]]),
    image_sizes=np.array([[height, width]]),
    pixel_values=np.ones([1, layout.tiles, 3, llava_onevision.TILE, llava_onevision.TILE], np.float32),
  )


def _qwen3_vl(reference, config_name):
  return Subject(
    reference,
    config_name,
    ("two_images", "text_only", "images_and_video"),
    (qwen3_vl.IMAGE, qwen3_vl.VIDEO),
    functools.partial(_qwen_picture, patch=qwen3_vl.PATCH),
    15,
    qwen3_vl.VISION_END,
    qwen3_vl.IM_END,
    36,
  )


# By model_type: one for each entry of the registry.
SUBJECTS = {
  "internvl": Subject(
    internvl,
    "qwen2",
    ("two_pictures", "text_only", "picture_and_video"),
    (internvl.IMAGE,),
    _internvl_picture,
    12,
    internvl.END,
    internvl.IM_END,
  ),
  "llava": Subject(llava, "llama", ("two", "text_only", "one"), (llava.IMAGE,), _llava_picture, 1),
  "llava_next": Subject(llava, "next", ("two_tilings", "text_only", "portrait"), (llava.IMAGE,), _llava_next_picture, 3),
  "llava_onevision": Subject(
    llava_onevision,
    "untied",
    ("several", "text_only", "image_and_video"),
    (llava_onevision.IMAGE, llava_onevision.VIDEO),
    _llava_onevision_picture,
    30,
    im_end_id=llava_onevision.IM_END,
  ),
  "qwen2_5_vl": Subject(
    qwen2_5_vl,
    "gqa",
    ("two_images", "text_only", "ragged_6x50"),
    (qwen2_5_vl.IMAGE, qwen2_5_vl.VIDEO),
    _qwen_picture,
    30,
    qwen2_5_vl.VISION_END,
    qwen2_5_vl.IM_END,
    36,
  ),
  "qwen3_vl": _qwen3_vl(qwen3_vl, "gqa"),
  "qwen3_vl_moe": _qwen3_vl(qwen3_vl_moe, "tied"),
}
# By the port's room.
REFERENCES = {subject.reference.__name__.rpartition(".")[2]: subject.reference for subject in SUBJECTS.values()}
