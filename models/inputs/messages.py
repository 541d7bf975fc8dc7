"""Messages of a chat in OpenAI's form: a role, and text or a list of texts, pictures and videos."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
import dataclasses
import pathlib
from typing import Any

from hawk_jax import checks
from models.inputs import video as video_lib
from models.inputs.video import Video

ROLES = ("system", "user", "assistant")


@dataclasses.dataclass(frozen=True)
class Message:
  """One message.

  Attributes:
    role: of `ROLES`.
    content: for the chat template: entries {"type": "text", "text": ...}, {"type": "image"} and {"type": "video"}.
    images: the pictures, in order, in any form that a processor takes.
    videos: the videos, in order.
    sources: path of each picture and video that came from a file.
  """

  role: str
  content: tuple[dict[str, Any], ...]
  images: tuple[Any, ...] = ()
  videos: tuple[Video, ...] = ()
  sources: tuple[str, ...] = ()

  @property
  def text(self) -> str:
    """Its texts, one per line."""
    return "\n".join(entry["text"] for entry in self.content if entry["type"] == "text")

  @property
  def template(self) -> dict[str, Any]:
    """The message as chat templates take it."""
    return {"role": self.role, "content": list(self.content)}


def read(
  message: Any,
  *,
  directory: pathlib.Path = pathlib.Path("."),
  fps: float = 2.0,
  max_frames: int = 64,
  read_video: Callable[..., Video] = video_lib.read,
  name: str = "messages",
) -> Message:
  """Reads a message, and the videos in it; pictures are opened by the processor.

  The entries of a content list are {"type": "text", "text": ...}, {"type": "image_url", "image_url": {"url": ...}} or
  {"type": "image", "image": ...}, and the same with `video`. A url is a path, file:// or, for pictures, data:...;base64,....

  Args:
    message: {"role": ..., "content": text or list}.
    directory: that relative paths start from.
    fps: frames per second to sample from videos.
    max_frames: most frames of a video.
    read_video: samples a file's frames; the model's own rule is `models.processor.Processor.read_video`.
    name: what errors call the message.

  Raises:
    ValueError: a message of another form, or a video that cannot be read.
  """
  role = message.get("role") if isinstance(message, Mapping) else None
  if not isinstance(role, str) or role not in ROLES or "content" not in message:
    raise ValueError(f"{name}: got {checks.show(message)}, must have a content and a role: {', '.join(ROLES)}")
  given = message["content"]
  if not isinstance(given, (str, list, tuple)):
    raise ValueError(f"{name}: content must be text or a list, got {type(given).__name__}")
  content: list[dict[str, Any]] = []
  images, videos, sources = [], [], []
  for entry in [{"type": "text", "text": given}] if isinstance(given, str) else given:
    kind = entry.get("type") if isinstance(entry, Mapping) else ""
    kind = kind if isinstance(kind, str) else ""
    if kind == "text" and isinstance(entry.get("text"), str):
      content.append({"type": "text", "text": entry["text"]})
      continue
    base = kind.removesuffix("_url")
    source = entry.get(kind) if base in ("image", "video") else None
    source = source.get("url") if isinstance(source, Mapping) else source
    if source is None:
      raise ValueError(f"{name}: got {checks.show(entry)}, must be a text, image, image_url, video or video_url entry")
    content.append({"type": base})
    if isinstance(source, str):
      source = _resolve(source, directory, name)
      sources += [str(source)] if isinstance(source, pathlib.Path) else []
    if base == "image":
      images.append(source)
    else:
      videos.append(source if isinstance(source, Video) else read_video(source, fps, max_frames))
  return Message(message["role"], tuple(content), tuple(images), tuple(videos), tuple(sources))


def _resolve(url: str, directory: pathlib.Path, name: str) -> pathlib.Path | bytes:
  """The path or the bytes that a url stands for."""
  if url.startswith("data:"):
    head, _, data = url.partition(",")
    try:
      if not head.endswith(";base64"):
        raise ValueError("it must be base64")
      return base64.b64decode(data, validate=True)
    except (ValueError, binascii.Error) as error:
      raise ValueError(f"{name}: {url[:40]!r} is not a data url ({error})") from error
  if url.startswith(("http://", "https://")):
    raise ValueError(f"{name}: nothing is downloaded, got {checks.show(url)}; give a path or a data url")
  return directory / url.removeprefix("file://")
