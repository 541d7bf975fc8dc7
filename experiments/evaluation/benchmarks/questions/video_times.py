"""What some models are told about a video before the question."""

from __future__ import annotations

from collections.abc import Sequence

from models.inputs.video import Video


def introduction(videos: Sequence[Video], family: str) -> str:
  """For LLaVA-OneVision, how long a video is and when its frames were taken, as VLMEvalKit says it; else nothing.

  Args:
    videos: of a question.
    family: `models.port.Port.prompt_family`.
  """
  return "".join(map(_times, videos)) if family == "llava_onevision" else ""


def _times(video):
  return (
    f"The video lasts for {video.interval * len(video.times):.2f} seconds, and {len(video.times)} frames are uniformly "
    f"sampled from it. These frames are located at {', '.join(f'{time:.2f}s' for time in video.times)}. "
    "Please answer the following questions related to this video.\n"
  )
