"""Video files to sampled frames, and frames to files, with PyAV.

The tests compare with transformers' Qwen2-VL video processor which frames are sampled, and when. The decoded pixels are not
compared: transformers reads files with other decoders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import contextlib
import dataclasses
import os

import av
import numpy as np

from hawk_jax import checks
from models import foreign

MINIMUM_FRAMES = 4
MAX_PIXELS = 100_000_000  # of a frame
_MOST_PIXELS = 1_000_000_000  # of all sampled frames, which are in memory together: 3 GB
# Containers that hold the video themselves. FFmpeg knows others, such as playlists, which name further files and addresses.
_FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegts,mpegvideo,h264,hevc,flv,ogg,asf,gif,m4v,wav,mp3"
_OPTIONS = {"format_whitelist": _FORMATS, "protocol_whitelist": "file"}
# What FFmpeg raises for files that are truncated, corrupt or hostile.
_ERRORS = (av.FFmpegError, *foreign.ERRORS)


@dataclasses.dataclass(frozen=True)
class Info:
  """A file's video stream.

  Attributes:
    frames: how many; counted from its packets where the file does not say.
    fps: frames per second, on average.
    width: in pixels.
    height: in pixels.
  """

  frames: int
  fps: float
  width: int
  height: int


@dataclasses.dataclass(frozen=True)
class Video:
  """Sampled frames.

  Attributes:
    frames: [T, H, W, 3] uint8.
    times: T, in seconds from the start.
    interval: mean seconds between sampled frames.
  """

  frames: np.ndarray
  times: tuple[float, ...]
  interval: float

  def __post_init__(self):
    """Checks the frames.

    Raises:
      ValueError: frames of another shape or type, none, or an interval that is no time.
    """
    if not isinstance(self.frames, np.ndarray) or self.frames.dtype != np.uint8 or self.frames.shape[3:] != (3,):
      kind = getattr(self.frames, "dtype", type(self.frames).__name__)
      raise ValueError(f"videos: got {kind} frames of shape {np.shape(self.frames)}, must be uint8 [T, H, W, 3]")
    if not self.frames.size:
      raise ValueError(f"videos: got frames of shape {self.frames.shape}, must be at least one, with pixels")
    checks.real("videos: interval", self.interval, "0 or more seconds", 0.0)


def sample(total: int, rate: float, fps: float, max_frames: int, multiple: int = 2) -> np.ndarray:
  """Which frames to take: those that transformers' Qwen2-VL video processor samples.

  For a few videos, such as 899 frames at 29.97 per second with fps=1, its float32 steps ask for a frame past the end. Here
  no such frame is taken.

  Args:
    total: frames of the video.
    rate: its frames per second.
    fps: frames per second to sample.
    max_frames: most frames.
    multiple: the number of frames is rounded down to a multiple of it, if the video has at least that many frames.

  Returns:
    [T] int64, evenly spread.

  Raises:
    ValueError: fps or max_frames out of range, or a video without frames.
  """
  check_sampling(total, fps, max_frames, multiple)
  most = min(max_frames, total) // multiple * multiple
  count = int(min(max(total / rate * fps, MINIMUM_FRAMES), most, total) // multiple * multiple) or 1
  # Rounding may add a step to arange; the multiple must hold.
  return np.arange(0, total, total / count)[:count].astype(np.int64)


def check_sampling(total: int, fps: float, max_frames: int, multiple: int = 2) -> None:
  """Refuses arguments of `sample`.

  Raises:
    ValueError: as `sample`.
  """
  if checks.real("fps", fps, "positive and finite", 0.0) == 0.0:
    raise ValueError(f"fps: got {checks.show(fps)}, must be positive and finite")
  checks.whole("max_frames", max_frames, 0)
  if max_frames < multiple:
    raise ValueError(f"max_frames: got {max_frames}, must be at least {multiple}, the frames of one temporal patch")
  if total < 1:
    raise ValueError("videos: the video has no frame")


def probe(path) -> Info:
  """Reads a file's information about its video.

  Args:
    path: mp4, webm, avi, or another container of video that FFmpeg reads.

  Raises:
    ValueError: the file is missing, is not a video, or has no frame.
  """
  with _opened(path) as (container, stream):
    try:
      frames = stream.frames or sum(packet.size > 0 for packet in container.demux(stream))
      info = Info(frames, float(stream.average_rate or stream.guessed_rate or 0), stream.width, stream.height)
    except _ERRORS as error:
      raise ValueError(f"videos: {path} cannot be read, it may be truncated ({foreign.reason(error)})") from error
  if info.frames < 1:
    raise ValueError(f"videos: {path} has no frame")
  if info.fps <= 0:
    raise ValueError(f"videos: {path} does not say how many frames per second it has")
  if not 0 < info.width * info.height <= MAX_PIXELS:
    raise ValueError(f"videos: {path} is {info.width} x {info.height} pixels, must have 1 to {MAX_PIXELS:,}")
  return info


def read(path, fps: float = 2.0, max_frames: int = 64, sample: Callable[..., np.ndarray] = sample) -> Video:
  """Samples a file's frames.

  Args:
    path: as for `probe`.
    fps: frames per second to sample.
    max_frames: most frames; longer videos are sampled more sparsely.
    sample: which frames to take, with the arguments of `sample`.

  Raises:
    ValueError: as `probe` and `sample`, or frames that cannot be decoded.
  """
  info = probe(path)
  wanted = sample(info.frames, info.fps, fps, max_frames)
  if (pixels := len(wanted) * info.width * info.height) > _MOST_PIXELS:
    raise ValueError(
      f"videos: {path} has {len(wanted)} sampled frames of {info.width} x {info.height}, {pixels:,} pixels; must be at most "
      f"{_MOST_PIXELS:,}: lower max_frames"
    )
  frames, decoded = _decode(path, wanted)
  if not decoded:
    raise ValueError(f"videos: {path} has no frame that can be decoded")
  if decoded != info.frames:  # the file promised more or fewer
    wanted = sample(decoded, info.fps, fps, max_frames)
    frames, _ = _decode(path, wanted)
  return Video(np.stack(frames), tuple((wanted / info.fps).tolist()), decoded / info.fps / len(wanted))


def write(path, frames: Sequence[np.ndarray], fps: int) -> None:
  """Writes a file in H.264, or VP8 for webm. Writing the same frames again on the same machine gives the same bytes.

  Args:
    path: of the file; its suffix names the container.
    frames: [H, W, 3] uint8 each, of even height and width.
    fps: frames per second.
  """
  with av.open(os.fspath(path), "w") as container:
    codec = "libvpx" if path.suffix == ".webm" else "libx264"
    stream = container.add_stream(codec, rate=fps, options={"crf": "18", "threads": "1"})
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = "yuv420p"
    for frame in frames:
      container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
    container.mux(stream.encode())


def _decode(path, wanted):
  """The wanted frames, and how many frames were decoded in all."""
  frames, remaining, number = [], set(wanted.tolist()), 0
  with _opened(path) as (container, stream):
    stream.thread_type = "AUTO"
    try:
      for number, frame in enumerate(container.decode(stream), 1):
        if number - 1 in remaining:
          # Some videos change their size on the way.
          frames.append(frame.to_ndarray(format="rgb24", width=stream.width, height=stream.height))
    except _ERRORS as error:
      raise ValueError(
        f"videos: {path} cannot be decoded after frame {number}, it may be truncated ({foreign.reason(error)})"
      ) from error
  return frames, number


@contextlib.contextmanager
def _opened(path):
  """A container and its video stream; raises ValueError where they cannot be opened."""
  if not isinstance(path, (str, os.PathLike)):
    raise ValueError(f"videos: got {checks.show(path)}, must be the path of a file")
  if not os.path.isfile(path):
    raise ValueError(f"videos: there is no file {path}")
  try:
    container = av.open(os.fspath(path), options=_OPTIONS)
  except _ERRORS as error:
    raise ValueError(f"videos: {path} is not a video FFmpeg can read ({foreign.reason(error)})") from error
  with container:
    if not container.streams.video:
      raise ValueError(f"videos: {path} has no video stream")
    yield container, container.streams.video[0]
