"""Writes qwen3_vl.json: transformers' rules for videos of Qwen3-VL.

Needs torch, so it runs in development only: python -m tests.reference.make_qwen3_vl_goldens
"""

from __future__ import annotations

import importlib
import json
import types

import torch
import transformers
from transformers.video_utils import VideoMetadata

from tests.reference import qwen3_vl

# Only this module's class needs torchvision, not its functions.
_VIDEO = importlib.import_module("transformers.models.qwen3_vl.video_processing_qwen3_vl")


def sampling(total, rate, fps, most) -> list[int]:
  """Numbers of the frames that are taken."""
  settings = types.SimpleNamespace(fps=2, min_frames=4, max_frames=most)
  metadata = VideoMetadata(total_num_frames=total, fps=rate)
  return _VIDEO.Qwen3VLVideoProcessor.sample_frames(settings, metadata, fps=fps).tolist()


def size(count, height, width, low, high) -> list[int]:
  """Height and width of the frames."""
  return list(_VIDEO.smart_resize(count, height, width, temporal_factor=2, factor=32, min_pixels=low, max_pixels=high))


def text(indices, rate, grid) -> str:
  """What replaces the placeholder of a video."""
  kind = transformers.Qwen3VLProcessor
  processor = types.SimpleNamespace(
    video_processor=types.SimpleNamespace(merge_size=2, temporal_patch_size=2),
    vision_start_token="<|vision_start|>",
    vision_end_token="<|vision_end|>",
    video_token="<|video_pad|>",
    _calculate_timestamps=lambda *arguments: kind._calculate_timestamps(None, *arguments),
  )
  metadata = VideoMetadata(total_num_frames=1000, fps=rate, frames_indices=list(indices))
  return kind.replace_video_token(processor, {"video_grid_thw": torch.tensor([grid]), "video_metadata": [metadata]}, 0)


def main():
  goldens = {
    "sampling": [sampling(*case) for case in qwen3_vl.SAMPLINGS],
    "sizes": [size(*case) for case in qwen3_vl.SIZES],
    "texts": [text(*case) for case in qwen3_vl.TEXTS],
    "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
  }
  qwen3_vl.RULES.write_text(json.dumps(goldens).replace("], [", "],\n[") + "\n")
  print(qwen3_vl.RULES.read_text())


if __name__ == "__main__":
  main()
