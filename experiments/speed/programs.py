"""Our model on one case, as compiled programs: the whole, and each of its stages alone."""

from __future__ import annotations

import functools
import time

import jax
import numpy as np

from experiments.speed.cases import Case
from models import generation
from models import sharding


@functools.partial(jax.jit, static_argnames="model")
def _prune(params, prompt, features, plan, *, model):
  return model.apply({"params": params}, prompt, features, plan, method="prune")


@functools.partial(jax.jit, static_argnames="model")
def _language(params, sequence, features, *, model):
  """[B, vocab] logits of each row's next token, and keys and values."""

  def call(module):
    out = module.run(sequence, features)
    return module.logits(out.last), out.keys_values

  return model.apply({"params": params}, method=call)


class Programs:
  """The programs of one case; each method runs one and waits for its result.

  Attributes:
    case: the case.
    order: [B, L] prompt positions kept, -1 on padding.
    cache_bytes: of the key/value cache, with room for the answer; on all devices together.
    compile_seconds: of each stage.
    temporary_bytes: that XLA sets aside for each stage on each device, beside arguments and results; None where it does not
      say.
  """

  def __init__(self, model, params, case: Case, steps: int):
    """Compiles.

    Args:
      model: a port.
      params: its parameters.
      case: what is measured.
      steps: decoding steps after the first token.
    """
    self.case = case
    self.compile_seconds: dict[str, float] = {}
    self.temporary_bytes: dict[str, int | None] = {}
    prompt = case.inputs.prompt
    end_ids = generation.check_length(model, prompt, steps + 1)
    self._params, self._end_ids = params, end_ids
    self._model, self._static = model, dict(model=model, max_new_tokens=steps + 1)
    self._vision = (params, case.inputs.vision)
    if case.tower is not None:
      self._vision += (case.inputs.prompt if case.tower.plan is not None else None, case.tower)
    self.vision = self._compile("vision", generation.encode, *self._vision, model=model)
    features = self.vision()
    self.prefill = self._compile(
      "prefill", generation.prefill, params, prompt, features, case.plan, None, end_ids, **self._static
    )
    state, order = self.prefill()
    self.order, self.cache_bytes = sharding.fetch(order, model.mesh), state.cache.nbytes
    self._features = features
    self._loop = self._compile("decode", generation.decode, params, state, prompt.next_position, None, end_ids, model=model)

  def _compile(self, name, function, *args, **static):
    """Compiles a stage; the program gets `args` unless it is called with others."""
    began = time.perf_counter()
    compiled = function.lower(*args, **static).compile()
    self.compile_seconds[name] = time.perf_counter() - began
    memory = compiled.memory_analysis()
    self.temporary_bytes[name] = None if memory is None else memory.temp_size_in_bytes
    return lambda *other: jax.block_until_ready(compiled(*(other or args)))

  @functools.cached_property
  def prune(self):
    """Scoring, selection and compaction alone."""
    return self._compile(
      "prune", _prune, self._params, self.case.inputs.prompt, self._features, self.case.plan, model=self._model
    )

  @functools.cached_property
  def language(self):
    """The decoder over the compacted prompt alone, and the head on the last token of each row."""
    return self._compile("language", _language, self._params, self.prune(), self._features, model=self._model)

  def first_token(self):
    """Vision and prefill as `generate` runs them: nothing waits in between."""
    return jax.block_until_ready(
      generation.prefill(
        self._params, self.case.inputs.prompt, self._encode(), self.case.plan, None, self._end_ids, **self._static
      )
    )

  def decode(self, state):
    """All decoding steps after a state of `first_token`, which is used up."""
    return self._loop(self._params, state, self.case.inputs.prompt.next_position, None, self._end_ids)

  def answer(self, return_logits: bool = False) -> generation.Generation:
    """The whole of `generate`."""
    return jax.block_until_ready(
      generation.prefill_and_decode(
        self._params,
        self.case.inputs.prompt,
        self._encode(),
        self.case.plan,
        None,
        self._end_ids,
        return_logits=return_logits,
        **self._static,
      )
    )

  def kept(self, row: int) -> np.ndarray:
    """Prompt positions that a row keeps, ascending."""
    return self.order[row][self.order[row] >= 0]

  def _encode(self):
    return generation.encode(*self._vision, model=self._model)
