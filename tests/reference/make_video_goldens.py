"""Writes video.safetensors: what transformers' Qwen2-VL video processor samples and makes of the videos in `video.py`.

Needs torch and torchvision, so it runs in development only: python -m tests.reference.make_video_goldens
"""

from __future__ import annotations

import numpy as np
from safetensors.numpy import save_file
import torch
import transformers
from transformers.video_utils import VideoMetadata

from tests.reference import video


def main():
  processor = transformers.Qwen2VLVideoProcessor(
    patch_size=video.PATCH, merge_size=video.MERGE, temporal_patch_size=video.DEEP
  )
  goldens = {}
  for number, (total, rate, fps, most) in enumerate(video.SAMPLINGS):
    metadata = VideoMetadata(total_num_frames=total, fps=rate)
    sampled = processor.sample_frames(metadata, fps=fps, max_frames=most).numpy().astype(np.int32)
    if sampled[-1] >= total:
      raise ValueError(f"{total, rate, fps, most}: asks for frame {sampled[-1]}, choose another case")
    goldens[f"sampling/{number}"] = sampled
  for name, (total, height, width, rate, fps, most, low, high) in video.CLIPS.items():
    metadata = VideoMetadata(total_num_frames=total, fps=rate, height=height, width=width, duration=total / rate)
    out = processor(
      videos=[torch.from_numpy(video.frames(name)).permute(0, 3, 1, 2)],
      video_metadata=[metadata],
      do_sample_frames=True,
      fps=fps,
      max_frames=most,
      size={"shortest_edge": low, "longest_edge": high},
      return_metadata=True,
      return_tensors="pt",
    )
    seen = out["video_metadata"][0]
    goldens[f"{name}/patches"] = np.ascontiguousarray(out["pixel_values_videos"].numpy()[:: video.ROWS])
    goldens[f"{name}/grid"] = out["video_grid_thw"].numpy().astype(np.int32)
    goldens[f"{name}/times"] = np.asarray(seen.timestamps)
    goldens[f"{name}/second_per_grid"] = np.asarray(video.DEEP / seen.sampled_fps)
    print(name, out["video_grid_thw"].tolist(), seen.timestamps, video.DEEP / seen.sampled_fps)
  save_file(goldens, video.GOLDENS, metadata={"torch": torch.__version__, "transformers": transformers.__version__})
  print(f"{video.GOLDENS.name}: {video.GOLDENS.stat().st_size:,} bytes")


if __name__ == "__main__":
  main()
