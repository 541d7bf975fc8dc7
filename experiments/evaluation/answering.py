"""Questions to answers: pictures are read and laid out in one thread while the device works in another.

Axes: B batch, V visual slots.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
import dataclasses
import functools
import time
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.benchmarks import prompts
from experiments.benchmarks import tsv
from experiments.benchmarks.suites import Suite
from experiments.evaluation.plan import Batch
from experiments.evaluation.plan import Setting
from hawk_jax import scoring
from models import generation
from models import sharding
from models import video as video_lib

_AHEAD = 3  # batches that may wait for the device
_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Options:
  """How questions are put to the model; see the flags of `experiments.evaluate`."""

  batch_size: int
  max_new_tokens: int = 64
  normalization: str = "l2"
  min_pixels: int | None = None
  max_pixels: int | None = None
  fps: float = 2.0
  max_frames: int = 64
  system_prompt: str = ""


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A batch that is ready for the device.

  Attributes:
    batch: what was to be prepared.
    inputs: packed, or None if no row could be read. Always of `batch_size` prompts, so that a file's last batch compiles
      nothing: the last row is repeated.
    rows: positions of the rows that `inputs` hold, the repeated ones left out.
    problems: position of a row to what is wrong with it.
  """

  batch: Batch
  inputs: Any
  rows: tuple[int, ...]
  problems: dict[int, str]


def prefetched(function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int = _AHEAD) -> Iterator[_Result]:
  """Maps in a thread of its own, never more than `ahead` results before they are asked for."""
  with futures.ThreadPoolExecutor(1) as pool:
    waiting: collections.deque = collections.deque()
    try:
      for item in items:
        waiting.append(pool.submit(function, item))
        if len(waiting) > ahead:
          yield waiting.popleft().result()
      while waiting:
        yield waiting.popleft().result()
    finally:
      for future in waiting:
        future.cancel()


class Answerer:
  """A model, its processor, and the ways of pruning it that are compared."""

  def __init__(self, model, params, processor, family: str, head_importance: np.ndarray, settings: Sequence[Setting],
               options: Options):
    self.model, self.params, self.processor, self.family = model, params, processor, family
    self.head_importance, self.settings, self.options = head_importance, settings, options

  def check(self) -> None:
    """Asks in vain, so that options no question can be asked with are told once and not of every row.

    Raises:
      ValueError: such options.
    """
    content = [{"type": "image"}, {"type": "text", "text": ""}]
    self._pack([([{"role": "user", "content": content}], [Image.new("RGB", (56, 56))], [])])
    video_lib.sample(1, 1.0, self.options.fps, self.options.max_frames)

  def prepare(self, batch: Batch, table: tsv.Table, suite: Suite) -> Prepared:
    """Reads and lays out a batch. Rows that cannot be read are left out."""
    chats, problems = {}, {}
    for at in batch.rows:
      try:
        chats[at] = self._chat(table, table.rows[at], suite)
      except ValueError as error:
        problems[at] = str(error)
    inputs = None
    try:
      inputs = self._pack(list(chats.values()))
    except ValueError:
      # One of them does not fit the model: find out which.
      for at, chat in list(chats.items()):
        try:
          self._pack([chat])
        except ValueError as error:
          row = table.rows[at]
          problems[at] = tsv.describe(table.path, row.number, row.index, table.column(row) or "question", error)
          del chats[at]
      inputs = self._pack(list(chats.values()))
    return Prepared(batch, inputs, tuple(chats), problems)

  def _chat(self, table, row, suite):
    pictures, videos = table.pictures(row), table.videos(row, self.options.fps, self.options.max_frames)
    content = [{"type": "image"}] * len(pictures) + [{"type": "video"}] * len(videos)
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": prompts.text(suite, row, self.family)}]}]
    if self.options.system_prompt:
      chat.insert(0, {"role": "system", "content": [{"type": "text", "text": self.options.system_prompt}]})
    return chat, pictures, videos

  def _pack(self, chats):
    if not chats:
      return None
    chats = chats + chats[-1:] * (self.options.batch_size - len(chats))
    messages, pictures, videos = map(list, zip(*chats))
    arrays = self.processor(messages=messages, images=pictures, videos=videos, min_pixels=self.options.min_pixels,
                            max_pixels=self.options.max_pixels)
    inputs = self.model.pack(**arrays)
    generation.check_decoding(self.model, inputs.prompt, self.options.max_new_tokens)
    return inputs

  def answer(self, prepared: Prepared, table: tsv.Table, drawn: Sequence[int] = ()) -> dict[str, Any]:
    """A journal entry: what every setting answers to every row of a batch.

    The vision features are computed once and serve all settings.

    Args:
      prepared: of `prepare`.
      table: of the batch.
      drawn: positions of the rows whose kept tokens are wanted, for the gallery.
    """
    entry = {"batch": prepared.batch.number, "rows": {}, "seconds": {}}
    for at, problem in prepared.problems.items():
      entry["rows"][at] = {"problem": problem}
    if prepared.inputs is None:
      return entry
    prompt = prepared.inputs.prompt
    began = time.perf_counter()
    features, summary = None, None
    if prepared.inputs.vision is not None:
      vision = sharding.place(prepared.inputs.vision, self.model.mesh)
      features = jax.block_until_ready(generation.encode(self.params, vision, model=self.model))
      entry["seconds"]["vision"], began = time.perf_counter() - began, time.perf_counter()
      summary = np.asarray(_summary(self.params, prompt, features, self.head_importance, model=self.model,
                                    normalization=self.options.normalization))
      entry["seconds"]["scores"] = time.perf_counter() - began
    visual = np.asarray(prompt.visual_order)
    for number, at in enumerate(prepared.rows):
      entry["rows"][at] = {"tokens": int((visual[number] >= 0).sum()), "answers": []}
      if summary is not None:
        entry["rows"][at]["scores"] = [float(f"{value:.6g}") for value in summary[number]]
    # Row numbers, not places in the batch, so that a question is drawn for alike wherever it stands.
    seeds = np.resize([table.rows[at].number for at in prepared.rows], len(visual))
    for setting in self.settings:
      began = time.perf_counter()
      texts, kept = self._generate(prompt, features, setting, seeds)
      entry["seconds"][setting.name] = time.perf_counter() - began
      for number, at in enumerate(prepared.rows):
        stayed = np.flatnonzero(np.isin(visual[number], kept[number]) & (visual[number] >= 0)).tolist()
        answer = {"prediction": texts[number], "kept": len(stayed)}
        if at in drawn and setting.selector is not None:
          answer["tokens"] = stayed
        entry["rows"][at]["answers"].append(answer)
    return entry

  def _generate(self, prompt, features, setting, seeds):
    arguments = {} if setting.selector is None else dict(keep_ratio=setting.keep_ratio, selector=setting.selector)
    length = self.options.max_new_tokens
    end_ids, sampling = generation.check_decoding(self.model, prompt, length, self.processor.eos_token_ids)
    pruning = generation.plan_pruning(self.model, prompt, self.head_importance, normalization=self.options.normalization,
                                      selector_seed=seeds, **arguments)
    out = generation.prefill_and_decode(self.params, prompt, features, pruning, sampling, end_ids, model=self.model,
                                        max_new_tokens=length, return_logits=False)
    return self.processor.decode(out.tokens, out.lengths), np.asarray(out.kept_positions)


@functools.partial(jax.jit, static_argnames=("model", "normalization"))
def _summary(params, prompt, features, head_importance, *, model, normalization):
  """[B, 3] float32: least, mean and largest fused score of each prompt's visual tokens; 0 where it has none."""
  raw = model.apply({"params": params}, prompt, features, method="scores")
  mask = prompt.visual_mask
  fused = scoring.fuse(scoring.normalize(raw, mask, normalization), head_importance)
  reduced = [jnp.min(fused, axis=1, where=mask, initial=jnp.inf),
             jnp.sum(fused, axis=1, where=mask) / jnp.maximum(mask.sum(1), 1),
             jnp.max(fused, axis=1, where=mask, initial=-jnp.inf)]
  return jnp.where(mask.any(1)[:, None], jnp.stack(reduced, axis=1), 0.0)
