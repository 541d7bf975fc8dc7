"""Pictures and chat text to the arrays that `pack` takes, without torch.

Tokenizer, chat template and image processing are transformers'. This module opens pictures, and repeats each picture's
placeholder in the text as often as the picture has visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import io
import itertools
import json
import os
import pathlib
import re
from typing import Any

import numpy as np
from PIL import Image
from PIL import ImageOps
from PIL import UnidentifiedImageError
import transformers

from models import registry
from models.checkpoints import directory as directory_lib
from models.inputs import video as video_lib
from models.inputs.media import MediaProcessor
from models.inputs.video import Video

MAX_PICTURE_PIXELS = 100_000_000


@dataclasses.dataclass(frozen=True)
class Processor:
  """Text and pictures to NumPy, and tokens back to text.

  Attributes:
    tokenizer: transformers' tokenizer.
    media: the port's processing of pictures and videos.
    chat_template: Jinja source.
    eos_token_ids: the tokens that end an answer.
  """

  tokenizer: Any
  media: MediaProcessor
  chat_template: str
  eos_token_ids: tuple[int, ...]

  def __call__(
    self,
    images: Sequence[Sequence[Any]] | None = None,
    prompts: Sequence[str] | None = None,
    *,
    messages: Sequence[Sequence[dict]] | None = None,
    videos: Sequence[Sequence[Video]] | None = None,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
  ) -> dict[str, np.ndarray]:
    """Arrays of a batch.

    Args:
      images: for each prompt its pictures: PIL images, [H, W, 3] uint8 arrays or paths.
      prompts: for each prompt its text; its pictures come before the text.
      messages: instead of prompts, a chat for each prompt, with a {"type": "image"} entry in place of each picture and a
        {"type": "video"} entry in place of each video.
      videos: for each prompt its videos, of `read_video`; they follow its pictures.
      min_pixels: smaller pictures and frames are scaled up to this many pixels, in ports that scale by pixels.
      max_pixels: larger ones are scaled down to this many pixels.

    Returns:
      `input_ids` and `attention_mask` [B, S], padded on the right, and the port's picture and video arrays.

    Raises:
      ValueError: neither or both of prompts and messages, unreadable pictures, or a number of pictures that
        differs from the number of places in the messages.
    """
    if (prompts is None) == (messages is None):
      raise ValueError("prompts and messages: give one of them")
    count = len(prompts or messages or ())
    if isinstance(prompts, str) or not count:
      raise ValueError(f"prompts: got {prompts!r}, must be a list of at least one text")
    images = [[]] * count if images is None else images
    if len(images) != count:
      raise ValueError(f"images: got pictures for {len(images)} prompts, there are {count}")
    videos = [[]] * count if videos is None else videos
    if len(videos) != count:
      raise ValueError(f"videos: got videos for {len(videos)} prompts, there are {count}")
    if messages is None:
      messages = [_user_message(len(row), len(clips), text) for row, clips, text in zip(images, videos, prompts or ())]
    if any(videos) and self.media.video_token is None:
      raise ValueError("videos: this model takes pictures only")
    images = [[open_picture(picture) for picture in row] for row in images]
    texts = [self._text(chat) for chat in messages]
    rows = [self._in_order(*prompt) for prompt in zip(itertools.count(), texts, images, videos)]
    media = self.media(rows, min_pixels, max_pixels)
    return {**self._tokenized(texts, media), **media.arrays}

  def read_video(self, path, fps: float = 2.0, max_frames: int = 64) -> Video:
    """Samples a file's frames by the model's rule; see `models.inputs.video.read`."""
    return video_lib.read(path, fps, max_frames, self.media.sample)

  def decode(self, tokens, lengths) -> list[str]:
    """Answers as text, without special tokens.

    Args:
      tokens: [B, T] of `generate`.
      lengths: [B] of `generate`.
    """
    rows = [np.asarray(row)[:length].tolist() for row, length in zip(np.asarray(tokens), np.asarray(lengths))]
    return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

  def _text(self, chat) -> str:
    """A chat as the model reads it, with placeholders."""
    return self.tokenizer.apply_chat_template(
      chat, chat_template=self.chat_template, tokenize=False, add_generation_prompt=True
    )

  def _in_order(self, number, text, images, videos) -> list[Image.Image | Video]:
    """The pictures and videos of a prompt in the order of their placeholders."""
    for name, noun, token, given in (
      ("images", "pictures", self.media.image_token, images),
      ("videos", "videos", self.media.video_token, videos),
    ):
      if token and (places := text.count(token)) != len(given):
        raise ValueError(f"{name}: prompt {number} has {len(given)} {noun}, its text has {places} places for them")
    items = {self.media.image_token: iter(images), self.media.video_token: iter(videos)}
    return [next(items[token]) for token in self._placeholder.findall(text)]

  def _tokenized(self, texts, media) -> dict[str, np.ndarray]:
    """`input_ids` and `attention_mask` of texts whose placeholders the port's own replace."""
    replacements = {self.media.image_token: iter(media.image_texts), self.media.video_token: iter(media.video_texts)}
    rows = []
    for text in texts:
      text = self._placeholder.sub(lambda found: next(replacements[found[0]]), text)
      # Some templates write the token that begins a text, others leave it to the tokenizer.
      begun = self.tokenizer.bos_token is not None and text.startswith(self.tokenizer.bos_token)
      rows.append(self.tokenizer(text, add_special_tokens=not begun)["input_ids"])
    length = max(map(len, rows))
    pad = self.tokenizer.pad_token_id or 0
    return {
      "input_ids": np.asarray([row + [pad] * (length - len(row)) for row in rows]),
      "attention_mask": np.asarray([[1] * len(row) + [0] * (length - len(row)) for row in rows]),
    }

  @property
  def _placeholder(self) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(token) for token in (self.media.image_token, self.media.video_token) if token))


def load_processor(path_or_hub_id: str) -> Processor:
  """The processor of a checkpoint in Hugging Face layout.

  Args:
    path_or_hub_id: as for `load_model`.

  Raises:
    ValueError: files that are missing or unreadable.
  """
  directory = directory_lib.resolve(path_or_hub_id)
  config = directory_lib.read_config(directory)
  port = registry.find(directory, config)
  try:
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    media = port.processor(directory, config, tokenizer)
  except (OSError, ValueError) as error:
    raise ValueError(f"model: {directory} has no usable tokenizer or image processor ({error})") from error
  return Processor(tokenizer, media, _chat_template(directory, tokenizer), _eos_token_ids(directory, tokenizer))


def open_picture(picture) -> Image.Image:
  """A picture as an RGB image.

  Args:
    picture: PIL image, [H, W, 3] uint8 array, path, or a file's bytes.

  Raises:
    ValueError: it is missing, not a picture, truncated, empty, or has more than 100 million pixels.
  """
  name = "images"
  try:
    if isinstance(picture, (str, os.PathLike)):
      name = f"images: {picture}"
      picture = Image.open(picture)
    elif isinstance(picture, bytes):
      name = "the content"
      picture = Image.open(io.BytesIO(picture))
    elif isinstance(picture, np.ndarray):
      if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[-1] != 3:
        raise ValueError(f"images: got a {picture.dtype} array of shape {picture.shape}, must be uint8 [H, W, 3]")
      if not picture.size:
        raise ValueError(f"images: the picture is {picture.shape[1]} x {picture.shape[0]} pixels, must have at least one")
      picture = Image.fromarray(picture)
    if not isinstance(picture, Image.Image):
      raise ValueError(f"images: got {type(picture).__name__}, must be a PIL image, a uint8 array or a path")
    width, height = picture.size
    if not 0 < width * height <= MAX_PICTURE_PIXELS:
      raise ValueError(f"{name} is {width} x {height} pixels, must have 1 to {MAX_PICTURE_PIXELS:,}")
    picture.load()
  except FileNotFoundError as error:
    raise ValueError(f"{name} does not exist") from error
  except UnidentifiedImageError as error:
    raise ValueError(f"{name} is not a picture Pillow can read") from error
  except Image.DecompressionBombError as error:
    raise ValueError(f"{name} must have 1 to {MAX_PICTURE_PIXELS:,} pixels ({error})") from error
  except (OSError, SyntaxError) as error:
    raise ValueError(f"{name} cannot be read, it may be truncated ({error})") from error
  return ImageOps.exif_transpose(picture).convert("RGB")


def _user_message(pictures: int, videos: int, text: str) -> list[dict]:
  content = [{"type": "image"}] * pictures + [{"type": "video"}] * videos + [{"type": "text", "text": text}]
  return [{"role": "user", "content": content}]


def _chat_template(directory: pathlib.Path, tokenizer) -> str:
  """The vision model's own template if there is one, else the tokenizer's."""
  if (path := directory / "chat_template.jinja").is_file():
    return path.read_text()
  if (path := directory / "chat_template.json").is_file():
    return json.loads(path.read_text())["chat_template"]
  if not tokenizer.chat_template:
    raise ValueError(f"model: {directory} has no chat template")
  return tokenizer.chat_template


def _eos_token_ids(directory: pathlib.Path, tokenizer) -> tuple[int, ...]:
  path = directory / "generation_config.json"
  ids = json.loads(path.read_text()).get("eos_token_id") if path.is_file() else None
  ids = tokenizer.eos_token_id if ids is None else ids
  return tuple(ids) if isinstance(ids, list) else () if ids is None else (ids,)
