"""Questions to answers: one thread reads pictures and lays them out while the device works on earlier batches.

Axes: B batch, V visual slots.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent import futures
import dataclasses
import functools
import time
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.evaluation import plan
from experiments.evaluation.benchmarks import tsv
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import video_times
from hawk_jax import pruning
from models import generate
from models import generation
from models import stages
from models.inputs.video import Video
from models.processor import Processor
from models.vision_language import Features
from models.vision_language import Inputs

_AHEAD = 3  # batches that may wait for the device
_Item, _Result = TypeVar("_Item"), TypeVar("_Result")


@dataclasses.dataclass(frozen=True)
class Options:
  """How questions are put to the model; see the settings of `experiments.evaluate`."""

  batch_size: int
  max_new_tokens: int = 64
  min_pixels: int | None = None
  max_pixels: int | None = None
  fps: float = 2.0
  max_frames: int = 64
  system_prompt: str = ""

  def reader(self, processor: Processor) -> Callable[..., Video]:
    """A function from a video file to the frames that the model gets."""
    return functools.partial(processor.read_video, fps=self.fps, max_frames=self.max_frames)


@dataclasses.dataclass(frozen=True)
class Prepared:
  """A batch that is ready for the device.

  Attributes:
    batch: of the plan.
    inputs: the packed questions; None if none of them can be asked. There are always `batch_size` prompts, so that the last
      batch of a file compiles nothing new: the last question is repeated.
    rows: positions of the rows in `inputs`, without the repetitions.
    problems: for the position of each row that cannot be asked, the reason.
  """

  batch: plan.Batch
  inputs: Inputs | None
  rows: tuple[int, ...]
  problems: dict[int, str]


def prefetched(function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int = _AHEAD) -> Iterator[_Result]:
  """Maps in a thread, which works at most `ahead` results ahead of those that have been taken."""
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


def check(model, processor, options: Options) -> None:
  """Packs one question and discards it, so that options that fit no question are reported once, not for every row.

  Raises:
    ValueError: such options.
  """
  content = [{"type": "image"}, {"type": "text", "text": ""}]
  _pack(model, processor, options, [([{"role": "user", "content": content}], [Image.new("RGB", (56, 56))], [])])
  processor.media.sample(1, 1.0, options.fps, options.max_frames)


class Answerer:
  """A model, its processor, and the settings of pruning that are compared."""

  def __init__(
    self,
    model,
    params,
    processor,
    family: str,
    head_importance: np.ndarray,
    settings: Sequence[plan.Setting],
    options: Options,
    importances: Mapping[str, np.ndarray] | None = None,
  ):
    """Keeps what all batches need.

    Args:
      model: a port.
      params: its parameters.
      processor: of the model.
      family: wording of the questions, `models.port.Port.prompt_family`.
      head_importance: [H] weights of the first layer's heads.
      settings: of `plan.settings`; the first keeps all tokens.
      options: how questions are put.
      importances: [H] weights by `plan.Setting.importance`, for settings that do not have `head_importance`.
    """
    self.model, self.params, self.processor, self.family = model, params, processor, family
    self.head_importance, self.settings, self.options = head_importance, settings, options
    self.importances = importances or {}
    self.measures = [name for setting in settings for name in setting.pruning.rule.measures]

  def prepare(self, batch: plan.Batch, table: tsv.Table, benchmark: Benchmark) -> Prepared:
    """Reads and lays out a batch, without the rows that cannot be read or do not fit the model."""
    pack = functools.partial(_pack, self.model, self.processor, self.options)
    chats, problems = {}, {}
    for at in batch.rows:
      try:
        chats[at] = self._chat(table, table.rows[at], benchmark)
      except ValueError as error:
        problems[at] = str(error)
    try:
      inputs = pack(list(chats.values()))
    except ValueError:
      # One of the questions does not fit the model. Find out which one.
      for at, chat in list(chats.items()):
        try:
          pack([chat])
        except ValueError as error:
          row = table.rows[at]
          problems[at] = table.describe(row, table.column(row) or "question", error)
          del chats[at]
      inputs = pack(list(chats.values()))
    return Prepared(batch, inputs, tuple(chats), problems)

  def _chat(self, table, row, benchmark):
    """A question's messages, pictures and videos."""
    pictures, videos = table.pictures(row), table.videos(row, self.options.reader(self.processor))
    content = [{"type": "image"}] * len(pictures) + [{"type": "video"}] * len(videos)
    text = video_times.introduction(videos, self.family) + benchmark.prompt(row, self.family)
    chat = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    if self.options.system_prompt:
      chat.insert(0, {"role": "system", "content": [{"type": "text", "text": self.options.system_prompt}]})
    return chat, pictures, videos

  def answer(self, prepared: Prepared, table: tsv.Table, drawn: Iterable[int] = ()) -> dict[str, Any]:
    """The journal entry of a batch: the answers to its rows under every setting.

    The vision features are computed once and serve all settings.

    Args:
      prepared: of `prepare`.
      table: of the batch.
      drawn: positions of the rows that the gallery shows; their entries also hold where the visual tokens are on the
        pictures, their scores, and which of them were kept.
    """
    rows: dict[int, dict[str, Any]] = {at: {"problem": problem} for at, problem in prepared.problems.items()}
    entry = {"batch": prepared.batch.number, "rows": rows, "seconds": {}}
    inputs = prepared.inputs
    if inputs is None:
      return entry

    def timed(stage, function, *arguments):
      began = time.perf_counter()
      with jax.profiler.TraceAnnotation(stage):
        result = jax.block_until_ready(function(*arguments))
      entry["seconds"][stage] = time.perf_counter() - began
      return result

    visual = np.asarray(inputs.prompt.visual_order)
    for number, at in enumerate(prepared.rows):
      rows[at] = {"tokens": int((visual[number] >= 0).sum()), "answers": []}
      if at in drawn:
        rows[at]["views"] = [[view.picture, view.rows, view.columns, int(view.newlines)] for view in inputs.views[number]]
    features = None
    if inputs.vision is not None:
      features = timed("vision", generation.encode_pictures, self.model, self.params, inputs, self.measures)
      for at, numbers in zip(prepared.rows, timed("scores", self._summary, inputs.prompt, features)):
        rows[at]["scores"] = [float(f"{value:.6g}") for value in numbers]
      shown = [(number, at) for number, at in enumerate(prepared.rows) if at in drawn]
      if shown:
        fused = timed("score maps", self._fused, inputs.prompt, features)
        for number, at in shown:
          rows[at]["map"] = [float(f"{value:.4g}") for value in fused[number][visual[number] >= 0]]
    # Seeds are row numbers, not places in the batch, so that a question's random draw does not depend on its batch.
    seeds = np.resize([table.rows[at].number for at in prepared.rows], len(visual))
    encoded: dict[Any, Features | None] = {None: features}
    for setting in self.settings:
      # Settings with the same stage in the tower share its features, unless the stage depends on the head importance.
      tower = setting.pruning.schedule.tower and (setting.pruning.schedule.tower, setting.importance)
      if tower not in encoded:
        encoded[tower] = timed(f"vision, {plan.name(setting)}", self._encode, inputs, setting)
      seen = encoded[tower]
      texts, kept_positions = timed(plan.name(setting), self._generate, inputs, seen, setting, seeds)
      left = self._survivors(inputs, seen, setting, seeds) if setting.pruning.stages and seen is not None and drawn else None
      for number, at in enumerate(prepared.rows):
        kept = np.flatnonzero(np.isin(visual[number], kept_positions[number]) & (visual[number] >= 0)).tolist()
        answer = {"prediction": texts[number], "kept": len(kept)}
        if at in drawn and setting.keep_ratio is not None:
          answer["tokens"] = kept
          if left is not None:
            real = visual[number] >= 0
            answer["stages"] = [np.flatnonzero(stage[number][real]).tolist() for stage in left]
        rows[at]["answers"].append(answer)
    return entry

  def _importance(self, setting):
    return self.importances.get(setting.importance, self.head_importance)

  def _encode(self, inputs, setting):
    """Features with the stage in the tower."""
    tower, _ = stages.plan_tower(self.model, inputs, setting.pruning, self._importance(setting))
    return generation.encode_pictures(self.model, self.params, inputs, (), tower)

  def _survivors(self, inputs, features, setting, seeds):
    """[stages, B, V] bool, the visual tokens that each stage leaves."""
    _, limits = stages.plan_tower(self.model, inputs, setting.pruning, self._importance(setting))
    planned = generation.make_plan(
      self.model, inputs.prompt, setting.pruning, self._importance(setting), seeds=seeds, limits=limits
    )
    return np.asarray(generation.survivors(self.params, inputs.prompt, features, planned, model=self.model))

  def _generate(self, inputs, features, setting, seeds):
    """Texts of all rows, and [B, L] prompt positions that were kept."""
    out = generate(
      self.model,
      self.params,
      inputs,
      self._importance(setting),
      features=features,
      selector_seed=seeds,
      max_new_tokens=self.options.max_new_tokens,
      eos_token_ids=self.processor.eos_token_ids,
      **dataclasses.asdict(setting.pruning),
    )
    return self.processor.decode(out.tokens, out.lengths), np.asarray(out.kept_positions)

  def _summary(self, prompt, features):
    return np.asarray(_summary(self.params, prompt, features, self._scored(prompt), model=self.model))

  def _fused(self, prompt, features):
    # A program apart from `_summary`, whose last digits another output of that program might change.
    return np.asarray(generation.fused_scores(self.params, prompt, features, self._scored(prompt), model=self.model))

  def _scored(self, prompt):
    return pruning.Plan(prompt.visual_order.shape[1], self.settings[0].pruning, self.head_importance)


def _pack(model, processor, options, chats):
  """The inputs of `Prepared`."""
  if not chats:
    return None
  chats = chats + chats[-1:] * (options.batch_size - len(chats))
  messages, pictures, videos = map(list, zip(*chats))
  arrays = processor(
    messages=messages, images=pictures, videos=videos, min_pixels=options.min_pixels, max_pixels=options.max_pixels
  )
  inputs = model.pack(**arrays)
  generation.check_length(model, inputs.prompt, options.max_new_tokens)
  return inputs


@functools.partial(jax.jit, static_argnames="model")
def _summary(params, prompt, features, scored, *, model):
  """[B, 3] float32: smallest, mean and largest fused score of each prompt's visual tokens; 0 where it has none."""
  fused, mask = model.apply({"params": params}, prompt, features, scored, method="fused_scores"), prompt.visual_mask
  reduced = [
    jnp.min(fused, axis=1, where=mask, initial=jnp.inf),
    jnp.sum(fused, axis=1, where=mask) / jnp.maximum(mask.sum(1), 1),
    jnp.max(fused, axis=1, where=mask, initial=-jnp.inf),
  ]
  return jnp.where(mask.any(1)[:, None], jnp.stack(reduced, axis=1), 0.0)
