"""Pictures and chat text to the arrays that `pack` takes, without torch.

Tokenizer, chat template and image processing are transformers'. This module puts them together, and repeats each picture's
placeholder in the text as often as the picture has visual tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import itertools
import pathlib
import re
from typing import Any

import numpy as np
from PIL import Image

from hawk_jax import checks
from models import foreign
from models import registry
from models.checkpoints import directory as directory_lib
from models.checkpoints import tokenizer as tokenizer_lib
from models.inputs import media as media_lib
from models.inputs import templates
from models.inputs import video as video_lib
from models.inputs.media import MediaProcessor
from models.inputs.pictures import open_picture
from models.inputs.video import Video
from models.vision_language import VisionLanguageModel


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
    name, given = ("messages", messages) if prompts is None else ("prompts", prompts)
    if not isinstance(given, (list, tuple)) or not given:
      raise ValueError(f"{name}: got {checks.show(given)}, must be a list of at least one {'chat' if messages else 'text'}")
    images, videos = _rows("images", images, len(given)), _rows("videos", videos, len(given))
    for number, item in enumerate(given):
      (templates.check if prompts is None else templates.check_text)(f"{name}: prompt {number}", item)
    if any(videos) and self.media.video_token is None:
      raise ValueError("videos: this model takes pictures only")
    if messages is None:
      messages = [templates.user_message(len(row), len(clips), text) for row, clips, text in zip(images, videos, given)]
    images = [[self._opened(picture, at, number) for at, picture in enumerate(row)] for number, row in enumerate(images)]
    for number, row in enumerate(videos):
      for at, video in enumerate(row):
        self._check_video(video, at, number)
    for name, limit in (("min_pixels", min_pixels), ("max_pixels", max_pixels)):
      if limit is not None:
        checks.whole(name, limit, 1)
    texts = [self._text(number, chat) for number, chat in enumerate(messages)]
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

    Raises:
      ValueError: arrays of another type or shape, or numbers that are no token ids.
    """
    tokens = checks.whole_array("tokens", tokens, "whole numbers [batch, length]")
    lengths = checks.whole_array("lengths", lengths, "whole numbers [batch]")
    if tokens.ndim != 2 or lengths.shape != tokens.shape[:1]:
      given = f"got shapes {tokens.shape} and {lengths.shape}"
      raise ValueError(f"tokens and lengths: {given}, must be [batch, length] and [batch]")
    if tokens.size and not 0 <= tokens.min() <= tokens.max() <= checks.INT32_MAX:
      raise ValueError(f"tokens: from {tokens.min()} to {tokens.max()}, must be token ids")
    rows = [row[:length].tolist() for row, length in zip(tokens, lengths)]
    return self.tokenizer.batch_decode(rows, skip_special_tokens=True)

  def _opened(self, picture, at, number) -> Image.Image:
    """An RGB picture that the model takes, the one at `at` of a prompt."""
    name = f"images: picture {at} of prompt {number}"
    opened = open_picture(picture, name)
    self.media.check_shape(name, *opened.size)
    return opened

  def _check_video(self, video, at, number) -> None:
    name = f"videos: video {at} of prompt {number}"
    if not isinstance(video, Video):
      raise ValueError(f"{name}: got {type(video).__name__}, must be a Video of models.inputs.video.read")
    height, width = video.frames.shape[1:3]
    self.media.check_shape(name, width, height)

  def _text(self, number, chat) -> str:
    """A chat as the model reads it, with placeholders."""
    try:
      return templates.render(self.tokenizer, self.chat_template, chat)
    except ValueError as error:
      raise ValueError(f"messages: prompt {number}: {error}") from error

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
  port, config, configuration = registry.configure(directory)
  for name in media_lib.FILES:
    if (directory / name).is_file():
      directory_lib.read_json(directory / name)
  tokenizer = tokenizer_lib.load(directory)
  try:
    media = port.processor(directory, config, tokenizer)
  except ValueError as error:
    raise ValueError(f"model: {directory} has no usable image processor ({error})") from error
  processor = Processor(tokenizer, media, templates.load(directory, tokenizer), _eos_token_ids(directory, tokenizer))
  _try(processor, port.model(configuration), directory)
  return processor


def _try(processor: Processor, model: VisionLanguageModel, directory: pathlib.Path) -> None:
  """Prepares one prompt, so that files which do not fit one another are found before any weights are loaded."""
  try:
    model.pack(**processor(images=[[Image.new("RGB", (61, 47))]], prompts=["?"]))
  except foreign.ERRORS as error:
    raise ValueError(f"model: {directory}: its files cannot prepare a picture ({foreign.reason(error)})") from error


def _eos_token_ids(directory: pathlib.Path, tokenizer) -> tuple[int, ...]:
  path, ids = directory / "generation_config.json", None
  if path.is_file():
    ids = directory_lib.read_json(path).get("eos_token_id")
  ids = tokenizer.eos_token_id if ids is None else ids
  ids = ids if isinstance(ids, list) else [] if ids is None else [ids]
  return tuple(checks.whole(f"model: {path}: eos_token_id", token, 0, checks.INT32_MAX) for token in ids)


def _rows(name: str, values: Any, count: int) -> list[list[Any]]:
  """For each prompt, its pictures or videos."""
  if values is None:
    return [[]] * count
  if not isinstance(values, (list, tuple)):
    raise ValueError(f"{name}: got {type(values).__name__}, must be a list with a list for each prompt")
  if len(values) != count:
    noun = "pictures" if name == "images" else name
    raise ValueError(f"{name}: got {noun} for {len(values)} prompts, there are {count}")
  for number, row in enumerate(values):
    if not isinstance(row, (list, tuple)):
      raise ValueError(f"{name}: got {type(row).__name__} for prompt {number}, must be a list of its {name}: {name}=[[...]]")
  return [list(row) for row in values]
