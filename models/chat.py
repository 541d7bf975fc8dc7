"""Chats: several turns about the same pictures. The vision encoder runs once per picture; every turn is pruned anew.

chat = Chat(model, params, processor, head_importance, keep_ratio=0.2)
turn = chat.ask("Which digit is red?", images=["photo.jpg"])
turn = chat.ask("What is beside it?")
print(turn.answer, turn.kept.sum(), "of", turn.kept.size)

A turn's prompt is the whole chat up to its question, so its answer is that of a fresh prompt with the same messages.

Axes: V visual tokens of a prompt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from hawk_jax.pruning import Pruning
from models import generation
from models import sharding
from models.inputs import messages as messages_lib
from models.inputs.messages import Message
from models.processor import open_picture
from models.processor import Processor
from models.vision_language import Features
from models.vision_language import Inputs
from models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class Conversation:
  """The messages of a chat, and the encoded pictures in them.

  Attributes:
    model: a port.
    processor: of the model.
    encode: `Inputs.vision` to features; called once for each message with pictures. None: pictures are encoded for every
      question anew, since what the vision tower does depends on it.
    min_pixels: smaller pictures are scaled up to this many pixels.
    max_pixels: larger pictures are scaled down to this many pixels.
    messages: so far.
    frames: for each `View.picture` of the packed prompt, a frame of a temporal slice of a video, or None for a picture.
    features: of each message with pictures, which was encoded on its own.
    slots: for each of them, [V] int32 row among all features of each of its visual tokens.
  """

  model: VisionLanguageModel
  processor: Processor
  encode: Callable[[Any], Features] | None
  min_pixels: int | None = None
  max_pixels: int | None = None
  messages: tuple[Message, ...] = ()
  frames: tuple[Image.Image | None, ...] = ()
  features: tuple[Features, ...] = ()
  slots: tuple[np.ndarray, ...] = ()

  def add(self, message: Message) -> Conversation:
    """With one more message, whose pictures are encoded.

    Raises:
      ValueError: pictures that the model does not take.
    """
    if not message.images and not message.videos:
      return dataclasses.replace(self, messages=(*self.messages, message))
    message = dataclasses.replace(message, images=tuple(map(open_picture, message.images)))
    inputs = self._pack([message])
    frames = (*self.frames, *_frames(message, inputs))
    longer = dataclasses.replace(self, messages=(*self.messages, message), frames=frames)
    if self.encode is None:
      return longer
    start = sum(len(features.tokens) for features in self.features)
    slots = np.asarray(inputs.prompt.visual_slots)[np.asarray(inputs.prompt.visual_mask)] + start
    encoded = (*self.features, self.encode(inputs.vision))
    return dataclasses.replace(longer, features=encoded, slots=(*self.slots, slots))

  def pack(self) -> tuple[Inputs, Features | None]:
    """The whole chat as a prompt that asks for the next answer, and the features of its pictures, if they are known.

    Raises:
      ValueError: a prompt that the model does not take.
    """
    inputs = self._pack(self.messages)
    if self.encode is None or not self.features:
      return inputs, None
    slots, visual = np.array(inputs.prompt.visual_slots), np.asarray(inputs.prompt.visual_mask)
    if sum(map(len, self.slots)) != visual.sum():
      return inputs, self.encode(inputs.vision)  # LLaVA-OneVision encodes several pictures in another way than one
    # A token's features are elsewhere than if all pictures had been encoded in one batch.
    slots[visual] = np.concatenate(self.slots)
    prompt = dataclasses.replace(inputs.prompt, visual_slots=slots)  # type: ignore[arg-type]
    joined = self.features[0] if len(self.features) == 1 else jax.tree.map(lambda *x: jnp.concatenate(x), *self.features)
    return dataclasses.replace(inputs, prompt=prompt), joined

  @property
  def pictures(self) -> tuple[Image.Image, ...]:
    """What each `View.picture` of the packed prompt shows."""
    images = iter(self.processor.media.as_seen([image for message in self.messages for image in message.images]))
    return tuple(next(images) if frame is None else frame for frame in self.frames)

  def _pack(self, messages: Sequence[Message]) -> Inputs:
    return self.model.pack(
      **self.processor(
        images=[[picture for message in messages for picture in message.images]],
        videos=[[video for message in messages for video in message.videos]],
        messages=[[message.template for message in messages]],
        min_pixels=self.min_pixels,
        max_pixels=self.max_pixels,
      )
    )


@dataclasses.dataclass(frozen=True)
class Turn:
  """An answer, and what it was made from.

  Attributes:
    answer: as text.
    tokens: its token ids.
    inputs: the prompt, a batch of one.
    kept_positions: prompt positions of all tokens that were kept.
    kept: [V] bool, True on visual tokens that were kept.
  """

  answer: str
  tokens: np.ndarray
  inputs: Inputs
  kept_positions: np.ndarray
  kept: np.ndarray


class Chat:
  """A model that answers in turns.

  Attributes:
    conversation: so far.
  """

  def __init__(
    self,
    model: VisionLanguageModel,
    params: dict[str, Any],
    processor: Processor,
    head_importance=None,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
    **options: Any,
  ):
    """Starts without messages.

    Args:
      model: a port.
      params: its parameters.
      processor: of the model.
      head_importance: as for `models.generate`.
      min_pixels: smaller pictures are scaled up to this many pixels.
      max_pixels: larger pictures are scaled down to this many pixels.
      **options: other arguments of `models.generate`: of pruning, sampling and length.
    """
    self._model, self._params, self._processor = model, params, processor
    self._options = {"head_importance": head_importance, "eos_token_ids": processor.eos_token_ids, **options}
    pruning = Pruning(selector=options.get("selector", "hawk"), stages=options.get("stages", ""))
    measures = pruning.rule.measures
    encode = lambda vision: generation.encode(params, sharding.place(vision, model.mesh), model=model, measures=measures)
    once = None if pruning.schedule.tower else encode
    self.conversation = Conversation(model, processor, once, min_pixels, max_pixels)

  def add(self, message: Any) -> None:
    """Adds a message without answering it: a system message, or a turn that is already answered.

    Args:
      message: {"role": ..., "content": ...}, see `models.inputs.messages.read`.

    Raises:
      ValueError: a message that cannot be read.
    """
    self.conversation = self.conversation.add(messages_lib.read(message, read_video=self._processor.read_video))

  def ask(self, content: Any, images: Sequence[Any] = (), **options: Any) -> Turn:
    """Adds a user's message and answers it.

    Args:
      content: text, or a content list.
      images: pictures before the text.
      **options: arguments of `models.generate` for this turn only.

    Raises:
      ValueError: a message that cannot be read, or an option that is not allowed; the chat is then what it was.
    """
    for name, value, kinds in (("content", content, (str, list, tuple)), ("images", images, (list, tuple))):
      if not isinstance(value, kinds):
        allowed = "a list" if name == "images" else "text or a list"
        raise ValueError(f"{name}: got {type(value).__name__}, must be {allowed}")
    content = [{"type": "text", "text": content}] if isinstance(content, str) else list(content)
    content = [{"type": "image", "image": picture} for picture in images] + content
    message = {"role": "user", "content": content}
    asked = self.conversation.add(messages_lib.read(message, read_video=self._processor.read_video))
    inputs, features = asked.pack()
    out = generation.generate(self._model, self._params, inputs, features=features, **{**self._options, **options})
    turn = make_turn(self._processor, inputs, out)
    self.conversation = asked.add(messages_lib.read({"role": "assistant", "content": turn.answer}))
    return turn


def make_turn(processor: Processor, inputs: Inputs, out: generation.Generation) -> Turn:
  """The turn of a prompt and its generation, both a batch of one."""
  positions = np.asarray(out.kept_positions)[0]
  positions = positions[positions >= 0]
  order = np.asarray(inputs.prompt.visual_order)[0]
  return Turn(
    answer=processor.decode(out.tokens, out.lengths)[0],
    tokens=np.asarray(out.tokens)[0, : int(out.lengths[0])],
    inputs=inputs,
    kept_positions=positions,
    kept=np.isin(order[order >= 0], positions),
  )


def _frames(message: Message, inputs: Inputs) -> list[Image.Image | None]:
  """The first frame of each temporal slice of a message's videos, and None for each picture, in the order of its content."""
  frames = sum(len(video.frames) for video in message.videos)
  slices = 1 + max(view.picture for view in inputs.views[0]) - len(message.images)
  step = -(-frames // max(slices, 1))
  videos = iter(message.videos)
  found: list[Image.Image | None] = []
  for entry in message.content:
    if entry["type"] == "image":
      found.append(None)
    elif entry["type"] == "video":
      found += [Image.fromarray(frame) for frame in next(videos).frames[::step]]
  return found
