"""Answers stage by stage, with the seconds of each, and what was kept: the work of `experiments.generate`.

Axes: B batch, H heads, V visual tokens.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import io
import pathlib
import time
from typing import Any

import jax
import numpy as np

from experiments.reporting import figures
from experiments.running import files
from hawk_jax import pruning
from models import chat
from models import generation
from models import sharding
from models import stages
from models.sampling import Sampling
from models.vision_language import Features


@dataclasses.dataclass(frozen=True)
class Options:
  """How questions are answered.

  Attributes:
    pruning: which visual tokens are kept.
    head_importance: [H] weights.
    scored: what the rule's scores are, in words.
    sampling: of the answer's tokens; None: greedy.
    seed: of rules that draw at random.
    max_new_tokens: most tokens of an answer.
    stream: whether to print the answer while it grows.
  """

  pruning: pruning.Pruning
  head_importance: np.ndarray
  scored: str
  sampling: Sampling | None
  seed: int
  max_new_tokens: int
  stream: bool

  @property
  def rule(self) -> str:
    """What keeps visual tokens, in words."""
    return f"{self.pruning.selector}, {self.scored}"


class Stopwatch:
  """Seconds of named stages; compilation is a stage of its own."""

  def __init__(self):
    self.seconds: dict[str, float] = {}

  def time(self, stage: str, function, *args):
    """Calls a function, and adds the seconds that it takes to a stage."""
    began = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
    return result

  def compile_and_time(self, stage: str, function, *args, **static):
    """Compiles a jitted function, as part of the stage `compile`, and calls it."""
    return self.time(stage, self.time("compile", lambda: function.lower(*args, **static).compile()), *args)


class Answerer:
  """Answers the last question of a conversation, stage by stage, and writes what it kept."""

  def __init__(self, model, params, processor, options: Options, clip=None, watch: Stopwatch | None = None):
    """Keeps what all turns need.

    Args:
      model: a port.
      params: its parameters.
      processor: of the model.
      options: how it answers.
      clip: of `clip_text.load`, whose relevance replaces HAWK's scores, or None.
      watch: with seconds that count for the first turn.
    """
    self.model, self.params, self.processor, self.options, self.clip = model, params, processor, options, clip
    self.watch = watch or Stopwatch()
    self.written: list[str] = []

  @property
  def encode(self) -> Callable[[Any], Features] | None:
    """Pictures to features; None with a stage in the vision tower, which may depend on the question."""
    return None if self.options.pruning.schedule.tower else self._encode

  def _encode(self, vision, *tower) -> Features:
    vision = sharding.place(vision, self.model.mesh)
    static = dict(model=self.model, measures=self.options.pruning.rule.measures)
    return self.watch.compile_and_time("vision", generation.encode, self.params, vision, *tower, **static)

  def answer(self, conversation: chat.Conversation, output: pathlib.Path, suffix: str) -> tuple[chat.Turn, dict[str, Any]]:
    """The turn, and its part of result.json."""
    options, model, params, watch = self.options, self.model, self.params, self.watch
    inputs, features = conversation.pack()
    print(f"question        {conversation.messages[-1].text}")
    prompt, question = inputs.prompt, conversation.messages[-1]
    end_ids = generation.check_length(model, prompt, options.max_new_tokens, self.processor.eos_token_ids)
    relevance = watch.time("clip", self.clip.relevance, model, params, inputs, [question.text]) if self.clip else None
    tower, limits = stages.plan_tower(model, inputs, options.pruning, options.head_importance)
    if tower is not None:
      features = self._encode(inputs.vision, prompt if tower.plan is not None else None, tower)
    plan = generation.make_plan(
      model, prompt, options.pruning, options.head_importance, scores=relevance, seeds=options.seed, limits=limits
    )
    state, order = watch.compile_and_time(
      "prefill",
      generation.prefill,
      params,
      prompt,
      features,
      plan,
      self.options.sampling,
      end_ids,
      model=model,
      max_new_tokens=options.max_new_tokens,
    )
    cache_bytes, keys = state.cache.nbytes, state.cache.keys[0]
    state = self._decode(state, prompt.next_position, end_ids)
    turn = chat.make_turn(self.processor, inputs, generation.finish(state, order))

    text, total, left = model.config.text, len(turn.kept), None
    report = {
      "prompt": question.text,
      "images": [source for message in conversation.messages for source in message.sources],
      "answer": turn.answer,
      "token_ids": turn.tokens.tolist(),
      "visual_tokens": total,
      "kept_visual_tokens": int(turn.kept.sum()),
      "prompt_tokens": total + int(prompt.text_counts[0]),
      "kept_prompt_tokens": len(turn.kept_positions),
      "kept_positions": turn.kept_positions.tolist(),
      "kv_cache_bytes": cache_bytes,
      "seconds": {name: round(value, 4) for name, value in watch.seconds.items()},
    }
    if options.pruning.stages and total:
      left = np.asarray(generation.survivors(params, prompt, features, plan, model=model))[:, 0, :total]
      schedule = stages.resolve(options.pruning, model)
      report["stages"] = {"schedule": str(schedule), "left": left.sum(axis=1).tolist()}
      print(f"stages          {schedule.describe(*stages.depths(model))}; left: {', '.join(map(str, left.sum(axis=1)))}")
    if total:
      plan = plan or pruning.Plan(total, options.pruning, self.options.head_importance, scores=relevance)
      self._write_scores(output, suffix, conversation, turn, features, plan, left)
    if not options.stream:
      print(f"answer          {turn.answer}")
    print(f"visual tokens   {report['kept_visual_tokens']} of {total} kept by {options.rule}")
    print(f"prompt tokens   {report['kept_prompt_tokens']} of {report['prompt_tokens']}")
    print(
      f"KV cache        {cache_bytes / 1e6:.2f} MB = 2 x {text.num_hidden_layers} layers x {keys.shape[1]} slots x "
      f"{text.num_key_value_heads} heads x {text.head_dim} x {keys.dtype.itemsize} bytes"
    )
    print("seconds         " + ", ".join(f"{name} {value:.3f}" for name, value in watch.seconds.items()))
    watch.seconds = {}
    return turn, report

  def _decode(self, state: generation.State, next_position, end_ids) -> generation.State:
    """The finished loop; with --stream, the answer is printed while it grows."""
    arguments = (next_position, self.options.sampling, end_ids)
    if not self.options.stream:
      return self.watch.compile_and_time("decode", generation.decode, self.params, state, *arguments, model=self.model)
    step = functools.partial(generation.decode, model=self.model)
    print("answer          ", end="")
    shown = ""
    while True:
      text = self.processor.decode(state.tokens, state.lengths)[0]
      ended = bool(state.done.all()) or int(state.step) == state.tokens.shape[1]
      if ended or not text.endswith("\ufffd"):  # which stands for half of a character
        print(text[len(shown) :], end="\n" if ended else "", flush=True)
        shown = text
      if ended:
        return state
      state = self.watch.time("decode", step, self.params, state, *arguments, np.int32(int(state.step) + 1))

  def _write_scores(self, output, suffix, conversation, turn, features, plan, left) -> None:
    """kept_tokens.png and scores.npz."""
    model, total = self.model, len(turn.kept)
    fused, heads = sharding.fetch(token_scores(self.params, turn.inputs.prompt, features, plan, model=model), model.mesh)
    views = turn.inputs.views[0]
    self.written += [f"scores{suffix}.npz", f"kept_tokens{suffix}.png"]
    content = io.BytesIO()
    np.savez_compressed(
      content,
      fused=fused[0, :total],
      heads=heads[0, :, :total],
      head_importance=self.options.head_importance,
      kept=turn.kept,
      order=np.asarray(turn.inputs.prompt.visual_order)[0, :total],
      views=np.asarray([dataclasses.astuple(view) for view in views], np.int32),
      rule=self.options.rule,
    )
    files.write(output / f"scores{suffix}.npz", content.getvalue())
    figures.kept_tokens(
      output / f"kept_tokens{suffix}.png",
      conversation.pictures,
      views,
      fused[0, :total],
      turn.kept,
      f"{conversation.messages[-1].text}\nanswer: {turn.answer}",
      self.options.pruning.selector,
      self.options.scored,
      left,
    )


@functools.partial(jax.jit, static_argnames="model")
def token_scores(params, prompt, features, plan, *, model):
  """[B, V] float32 fused scores by which the plan prunes, and [B, H, V] float32 scores of every head."""
  apply = functools.partial(model.apply, {"params": params}, prompt, features)
  return apply(plan, method="fused_scores"), apply(plan.pruning.score_layer, method="scores")
