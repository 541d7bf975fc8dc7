"""Pictures, questions and what is kept of them, behind the explorer's page.

What is slow happens once: vision per picture, and per question the scores of every head and the answer from all tokens.
Sliders change data only. A prompt's text and the number of tokens kept are padded to a few sizes, and the programs of all of
them are compiled when a question, a rule or a schedule of stages is new, so that no slider compiles anything.

Axes: H heads, V visual tokens, K kept slots.
"""

from __future__ import annotations

import base64
import collections
from collections.abc import Sequence
import dataclasses
import functools
import io
import threading
import time
from typing import Any
import uuid

import jax
import numpy as np
from PIL import Image

from hawk_jax import checks
from hawk_jax import importance
from hawk_jax import pruning
from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax.prompt import Prompt
from models import chat
from models import generation
from models import sharding
from models import stages as stages_lib
from models.inputs import messages
from models.processor import open_picture
from models.vision_language import Features
from models.vision_language import View

_SHOWN = 1024  # pixels of a shown picture's longer side
_PICTURES, _QUESTIONS = 4, 16  # that are remembered
_TEXT_MINIMUM = 64
_SHARES = (8, 4, 2, 1)  # K is V over one of them


def rules() -> list[str]:
  """Selectors that need no more than features and the decoder's projections, and drop tokens before the decoder."""
  return [
    name
    for name, rule in selectors.SELECTORS.items()
    if rule.stage == "input" and "scores" not in rule.needs and not rule.measures and rule.merge is None
  ]


@dataclasses.dataclass
class Picture:
  """A picture, and its features once a question needed them."""

  image: Image.Image
  features: Features | None = None


@dataclasses.dataclass
class Question:
  """A prompt about a picture.

  Attributes:
    prompt: a batch of one.
    features: of the picture.
    total: V.
    sizes: every K that is compiled.
    ready: (rule, normalization) pairs, and schedules, whose programs are compiled.
  """

  prompt: Prompt
  features: Features
  total: int
  sizes: list[int]
  ready: set[tuple[str, ...]] = dataclasses.field(default_factory=set)


class Session:
  """A model, and the last pictures and questions. Calls may come from several threads; they take turns."""

  def __init__(self, model, params, processor, *, max_new_tokens: int, **pixels: int):
    """Keeps what all questions need.

    Args:
      model: a port.
      params: its parameters.
      processor: of the model.
      max_new_tokens: most tokens of an answer.
      **pixels: `min_pixels` and `max_pixels` of the processor.
    """
    self._model, self._params, self._processor = model, params, processor
    self._max_new_tokens, self._pixels = max_new_tokens, pixels
    self._pictures: collections.OrderedDict[str, Picture] = collections.OrderedDict()
    self._questions: collections.OrderedDict[str, Question] = collections.OrderedDict()
    self._lock = threading.Lock()

  def open(self, content: bytes) -> dict[str, Any]:
    """Takes a picture file; it is kept in memory until others replace it.

    Raises:
      ValueError: no picture.
    """
    image = open_picture(content)
    with self._lock:
      name = _remember(self._pictures, Picture(image), _PICTURES)
    shown = self._processor.media.as_seen([image])[0].copy()
    shown.thumbnail((_SHOWN, _SHOWN))
    buffer = io.BytesIO()
    shown.save(buffer, "PNG")
    encoded = base64.b64encode(buffer.getvalue()).decode()
    return {"picture": name, "width": image.width, "height": image.height, "shown": "data:image/png;base64," + encoded}

  def ask(self, picture: str, text: str, earlier: Sequence[Sequence[str]] = ()) -> dict[str, Any]:
    """Scores every visual token for a question, and answers from all of them.

    Args:
      picture: of `open`.
      text: the question.
      earlier: questions about the same picture and their answers, which come before it in the prompt.

    Raises:
      ValueError: a picture that is no longer there, or a prompt that the model does not take.
    """
    with self._lock:
      shown = _recall(self._pictures, picture, "picture")
      if not isinstance(text, str) or not text.strip():
        raise ValueError("question: write one first")

      def encode(vision) -> Features:
        if shown.features is None:
          vision = sharding.place(vision, self._model.mesh)
          shown.features = jax.block_until_ready(generation.encode(self._params, vision, model=self._model))
        return shown.features

      conversation = chat.Conversation(self._model, self._processor, encode, **self._pixels)
      content: list[dict[str, Any]] = [{"type": "image", "image": shown.image}]
      for asked, answer in earlier:
        conversation = conversation.add(_user([*content, {"type": "text", "text": asked}]))
        conversation = conversation.add(messages.read({"role": "assistant", "content": answer}))
        content = []
      inputs, features = conversation.add(_user([*content, {"type": "text", "text": text}])).pack()
      assert features is not None
      generation.check_length(self._model, inputs.prompt, self._max_new_tokens)
      question = _make_question(inputs.prompt, features)
      name = _remember(self._questions, question, _QUESTIONS)
      for size in question.sizes:
        self._answer(question, np.arange(question.total) < size, size)
      everything = np.ones(question.total, bool)
      runs = [self._answer(question, everything, question.sizes[-1]) for _ in range(3)]
      heads = np.asarray(_head_scores(self._params, question.prompt, features, model=self._model))[0, :, : question.total]
      return {
        "question": name,
        "views": [_view(view) for view in inputs.views[0]],
        "visual_tokens": question.total,
        "text_tokens": int(inputs.prompt.text_counts[0]),
        "heads": [_short(row) for row in heads],
        "answer": runs[0]["answer"],
        "milliseconds": sorted(run["milliseconds"] for run in runs)[1],
      }

  def prune(
    self, question: str, weights: Any, count: Any, rule: str, normalization: str, stages: str = ""
  ) -> dict[str, Any]:
    """Keeps some visual tokens of a question and answers from them.

    Args:
      question: of `ask`.
      weights: [H] importance of every head.
      count: visual tokens that enter the decoder.
      rule: of `rules`.
      normalization: of the scores.
      stages: a schedule of stages in the decoder, see `hawk_jax.schedule`; empty: none.

    Raises:
      ValueError: an argument that is not allowed, by name, or a question that is no longer there.
    """
    with self._lock:
      asked = _recall(self._questions, question, "question")
      head_importance = importance.validate(weights, self._model.config.text.num_attention_heads)
      if head_importance.ndim != 1:
        raise ValueError(f"head_importance: got shape {head_importance.shape}, must be [heads]")
      checks.whole("count", count, 1, asked.total)
      checks.choice("rule", rule, rules())
      settings = pruning.Pruning(selector=rule, normalization=normalization)
      staged = self._staged(stages)
      whole = np.asarray([asked.total])
      cuts = {size: staged.cuts(whole, whole, size) for size in asked.sizes}
      if (rule, normalization) not in asked.ready:
        for size in asked.sizes:
          self._select(asked, settings, head_importance, min(size, asked.total), size)
        asked.ready.add((rule, normalization))
      if staged.stages and (staged.stages,) not in asked.ready:
        for size in asked.sizes:
          self._answer(asked, np.arange(asked.total) < size, size, cuts[size], head_importance)
        asked.ready.add((staged.stages,))
      size = next(size for size in asked.sizes if size >= count)
      began = time.perf_counter()
      fused, kept = self._select(asked, settings, head_importance, count, size)
      selecting = 1000 * (time.perf_counter() - began)
      answer = self._answer(asked, kept, size, cuts[size], head_importance)
      left = [np.count_nonzero(kept), *(len(stage["kept"]) for stage in answer["stages"])]
      starts = [0, *(cut.layer for cut in cuts[size]), self._model.config.text.num_hidden_layers]
      return {
        "fused": _short(fused),
        "kept": np.flatnonzero(kept).tolist(),
        "answer": answer["answer"],
        "stages": answer["stages"],
        "visual_tokens_per_layer": float(np.dot(left, np.diff(starts)) / starts[-1]),
        "milliseconds": selecting + answer["milliseconds"],
      }

  def _staged(self, stages: Any) -> pruning.Pruning:
    """Settings with the stages in the decoder, each with a layer and a score.

    Raises:
      ValueError: stages that the model does not have, or that are not in the decoder.
    """
    if not isinstance(stages, str):
      raise ValueError(f"stages: got {stages!r}, must be text such as decoder@2:0.1")
    if not stages.strip():
      return pruning.Pruning()
    found = stages_lib.resolve(pruning.Pruning(stages=stages), self._model)
    if found.tower is not None or found.input is not None:
      raise ValueError(
        f"stages: got {stages!r}, only stages in the decoder are allowed here: the number of tokens kept is the stage at "
        "the input, and a picture goes through the tower once, before there is a question"
      )
    return pruning.Pruning(stages=str(found))

  def _select(self, question: Question, settings, head_importance, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[V] fused scores, and [V] bool, True on the tokens that the rule keeps."""
    plan = _plan(size, settings, count, head_importance=head_importance)
    fused, order = sharding.fetch(
      _fused_and_kept(self._params, question.prompt, question.features, plan, model=self._model), self._model.mesh
    )
    return fused[0, : question.total], np.isin(question.prompt.visual_order[0, : question.total], order[0])

  def _answer(
    self, question: Question, kept: np.ndarray, size: int, cuts: Sequence[pruning.Cut] = (), head_importance=None
  ) -> dict[str, Any]:
    """The answer from the kept tokens, its milliseconds, and what every stage in the decoder leaves of them.

    Their choice reaches the program as scores, so that one program serves all rules. Of the stages, only the score `layer`
    reads the head importance.
    """
    prompt, model, params = question.prompt, self._model, self._params
    scores, count = np.zeros(prompt.visual_order.shape, np.float32), int(kept.sum())
    scores[0, : question.total] = kept
    cuts = tuple(cut.replace(counts=np.minimum(cut.counts, count)) for cut in cuts)
    plan = _plan(size, pruning.Pruning(), count, scores=scores, cuts=cuts, head_importance=head_importance if cuts else None)
    ends = np.asarray(self._processor.eos_token_ids, np.int32)
    began = time.perf_counter()
    state, order = generation.prefill(
      params, prompt, question.features, plan, None, ends, model=model, max_new_tokens=self._max_new_tokens
    )
    state = jax.block_until_ready(generation.decode(params, state, prompt.next_position, None, ends, model=model))
    milliseconds = 1000 * (time.perf_counter() - began)
    left: list[dict[str, Any]] = []
    if cuts:
      survivors = generation.survivors(params, prompt, question.features, plan, model=model)
      survivors = sharding.fetch(survivors, model.mesh)[2:, 0, : question.total]
      left = [{"layer": cut.layer, "kept": np.flatnonzero(row).tolist()} for cut, row in zip(cuts, survivors)]
    return {"answer": self._processor.decode(state.tokens, state.lengths)[0], "milliseconds": milliseconds, "stages": left}


@functools.partial(jax.jit, static_argnames="model")
def _fused_and_kept(params, prompt, features, plan, *, model):
  """[1, V] fused scores, and [1, L] prompt positions of all tokens that the plan keeps."""
  apply = functools.partial(model.apply, {"params": params}, prompt, features, plan)
  return apply(method="fused_scores"), apply(method="prune").order


@functools.partial(jax.jit, static_argnames="model")
def _head_scores(params, prompt, features, *, model):
  """[1, H, V] raw scores."""
  return model.apply({"params": params}, prompt, features, method="scores")


def _plan(size: int, settings: pruning.Pruning, count: int, **arrays) -> pruning.Plan:
  return pruning.Plan(size, settings, counts=np.asarray([count], np.int32), seeds=np.zeros([1], np.uint32), **arrays)


def _make_question(prompt: Prompt, features: Features) -> Question:
  """Pads the text to a power of two, so that questions of many lengths share programs."""
  length = prompt.text_tokens.shape[1]
  room = max(_TEXT_MINIMUM, 1 << (length - 1).bit_length()) - length
  pad = lambda values, fill=0: np.pad(values, [(0, 0), (0, room)] + [(0, 0)] * (np.ndim(values) - 2), constant_values=fill)
  prompt = prompt.replace(
    text_tokens=pad(prompt.text_tokens),
    text_order=pad(prompt.text_order, -1),
    text_positions=pad(prompt.text_positions),
    query_mask=pad(prompt.query_mask),
  )
  slots = prompt.visual_order.shape[1]
  sizes = sorted({min(slots, max(pruning.KEEP_MINIMUM, -(-slots // share))) for share in _SHARES})
  return Question(prompt, features, int(prompt.visual_counts[0]), sizes)


def _user(content: list[dict[str, Any]]) -> messages.Message:
  return messages.read({"role": "user", "content": content}, name="question")


def _remember(items: collections.OrderedDict, value: Any, most: int) -> str:
  name = uuid.uuid4().hex
  items[name] = value
  while len(items) > most:
    items.popitem(last=False)
  return name


def _recall(items: collections.OrderedDict, name: Any, what: str) -> Any:
  if not isinstance(name, str) or name not in items:
    raise ValueError(f"{what}: it is no longer in memory; give it again")
  items.move_to_end(name)
  return items[name]


def _view(view: View) -> list[int]:
  return [view.rows, view.columns, int(view.newlines)]


def _short(values: np.ndarray) -> list[float]:
  """Numbers with the digits that a picture of them needs."""
  return [float(f"{value:.5g}") for value in values]


def facts(name: str, model, head_importance: np.ndarray) -> dict[str, Any]:
  """What the page says of the model."""
  return {
    "model": name,
    "weights": head_importance.tolist(),
    "rules": rules(),
    "normalizations": list(scoring.NORMALIZATIONS),
    "stages": [f"decoder@{model.config.text.num_hidden_layers // 2}:0.1/{score}" for score in stages_lib.SCORES],
  }
