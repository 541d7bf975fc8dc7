"""How long programs take to compile."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools
import tempfile
import time

import jax

from experiments.running import compilation_cache
from experiments.speed import cases
from models import generation
from models.checkpoints import params as params_lib


@dataclasses.dataclass(frozen=True)
class Compilation:
  """Seconds of one program.

  Attributes:
    program: its name.
    start: whether it could be taken from a cache.
    tracing: seconds from Python to StableHLO.
    compiling: seconds from there to machine code.
  """

  program: str
  start: str
  tracing: float
  compiling: float

  def __str__(self) -> str:
    return f"{self.program}, {self.start}: traced in {self.tracing:.1f} s, compiled in {self.compiling:.1f} s"


def measure(model, case: cases.Case, steps: int, dtype: str) -> list[Compilation]:
  """Compiles what `generate` runs, first without a cache and then with one of its own; no parameters are made.

  Args:
    model: a port.
    case: a prompt and how it is pruned.
    steps: decoding steps after the first token.
    dtype: of the parameters.
  """
  programs = _programs(model, case, steps, dtype)
  found = []
  with tempfile.TemporaryDirectory() as directory, compilation_cache.kept_in(directory, 0.0):
    for start in ("first start", "with a warm cache"):
      jax.clear_caches()
      for name, lower in programs.items():
        began = time.perf_counter()
        lowered = lower()
        traced = time.perf_counter()
        lowered.compile()
        found.append(Compilation(name, start, traced - began, time.perf_counter() - traced))
  return found


def _programs(model, case, steps, dtype) -> dict[str, Callable[[], jax.stages.Lowered]]:
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params_lib.abstract(model))
  end_ids = generation.check_length(model, case.inputs.prompt, steps + 1)
  features = jax.eval_shape(functools.partial(generation.encode, model=model), params, case.inputs.vision)
  return {
    "vision": lambda: generation.encode.lower(params, case.inputs.vision, model=model),
    "prefill and decoding": lambda: generation.prefill_and_decode.lower(
      params,
      case.inputs.prompt,
      features,
      case.plan,
      None,
      end_ids,
      model=model,
      max_new_tokens=steps + 1,
      return_logits=False,
    ),
  }
