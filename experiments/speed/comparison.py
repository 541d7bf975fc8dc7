"""Our model beside a baseline: equal outputs first, then seconds in the same rounds."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import functools
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np

from experiments.speed import timing
from experiments.speed.programs import Programs

# Largest difference of logits, relative to the largest logit. float16 and bfloat16 round more than float32.
_FLOAT32 = 1e-4
_LOW_PRECISION = 5e-2


class Baseline(Protocol):
  """Another implementation of the same checkpoint, for prompts of equal length; its own arrays are of any kind."""

  device: str

  def tensors(self, arrays: dict[str, np.ndarray]) -> Any:
    """A processor's arrays, on the device."""

  def vision(self, tensors: Any) -> Any:
    """Visual tokens."""

  def prefill(self, tensors: Any, kept: np.ndarray, room: int | None = None) -> tuple:
    """Vision, and the prompts' tokens at the positions `kept` [B, K]; the first arguments of `decode`.

    With `room`, the cache has that many slots and decoding replays one compiled step, where the device can do so.
    """

  def decode(self, *state: Any) -> list[list[int]]:
    """Greedy tokens of each row after a prefill: one, and as many more as the last argument says."""

  def answer(
    self, tensors: Any, kept: np.ndarray, steps: int, room: int | None = None
  ) -> tuple[np.ndarray, list[list[int]]]:
    """[B, vocab] float32 logits of the first token, and `steps` + 1 greedy tokens of each row."""

  def wait(self) -> None:
    """Returns when the device has done all its work."""


def check_installed(baseline: str) -> None:
  """Checks that a baseline can run.

  Args:
    baseline: transformers, or none.

  Raises:
    ValueError: torch is not installed.
  """
  if baseline != "none" and not find_spec("torch"):
    raise ValueError(f"baseline: {baseline} needs torch, which is not installed")


def check_outputs(
  ours: Sequence[Programs], name: str, baseline: Baseline, arrays: dict[str, np.ndarray], steps: int, dtypes: Iterable[str]
) -> list[dict[str, Any]]:
  """Compares first logits and greedy tokens with the baseline's, which keeps the same tokens.

  Args:
    ours: our model on cases of one prompt.
    name: of the baseline.
    baseline: what it is compared with.
    arrays: the prompt, of a processor.
    steps: decoding steps after the first token.
    dtypes: of the parameters of both. Greedy tokens must be equal only if all are float32.

  Returns:
    What was found for each case. `gap` tells a near tie from an error: at the first place where tokens differ, by how much
    our logit of the baseline's token is below our largest, as a share of the largest; None where no token differs.

  Raises:
    ValueError: outputs that differ by more than the dtype's rounding explains.
  """
  checks, tensors = [], baseline.tensors(arrays)
  exact = set(dtypes) == {"float32"}
  for programs in ours:
    kept = programs.kept(0)[None]
    (expected,), (tokens,) = baseline.answer(tensors, kept, steps)
    found = np.asarray(programs.language()[0][0])
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    same = int(np.cumprod(np.asarray(programs.answer().tokens)[0] == tokens).sum())
    checks.append(
      {
        "baseline": name,
        "case": programs.case.name,
        "largest_logit_error": error,
        "equal_tokens": same,
        "of": steps + 1,
        "gap": None if same > steps else _gap(programs, same, tokens[same]),
      }
    )
    close = error <= (_FLOAT32 if exact else _LOW_PRECISION)  # False for NaN too
    if not close or (exact and same != steps + 1):
      raise ValueError(f"baseline: outputs differ at {programs.case.name}: {checks[-1]}")
  return checks


def _gap(programs, place, token):
  logits = np.asarray(programs.answer(return_logits=True).logits)[0, place]
  return float((logits.max() - logits[token]) / np.abs(logits).max())


def add_baseline(
  clock: timing.Clock,
  name: str,
  baseline: Baseline,
  arrays: dict[str, np.ndarray],
  ours: Sequence[Programs],
  mixed: Programs,
  rows: Sequence[dict[str, np.ndarray]],
  batches: Sequence[tuple[dict[str, np.ndarray], Programs]],
  steps: int,
) -> None:
  """Adds the baseline's functions to a clock; it answers prompts of different lengths one by one.

  Args:
    clock: that measures our programs too.
    name: of the baseline, with which the names of its functions begin.
    baseline: what is measured.
    arrays: the prompt of `ours`, of a processor.
    ours: cases of one prompt.
    mixed: a case of several prompts with pictures of different sizes.
    rows: arrays of each prompt of `mixed`.
    batches: arrays and case of several prompts with pictures of one size.
    steps: decoding steps after the first token.
  """
  add = lambda function, *args, **options: clock.add(f"{name} {function}", *args, wait=baseline.wait, **options)
  decode = lambda *state: baseline.decode(*state, steps)
  tensors = baseline.tensors(arrays)
  add("vision", lambda: baseline.vision(tensors))
  for given, programs in [(arrays, one) for one in ours] + list(batches):
    kept = np.stack([programs.kept(row) for row in range(len(given["input_ids"]))])
    prefill = functools.partial(baseline.prefill, baseline.tensors(given), kept)
    add(f"first_token {programs.case.name}", prefill)
    add(f"decode {programs.case.name}", decode, prepare=prefill)
    if baseline.device == "cuda":
      room = kept.shape[1] + steps + 1
      add(f"decode {programs.case.name}, CUDA graphs", decode, prepare=functools.partial(prefill, room=room))
  singles = [(baseline.tensors(row), mixed.kept(number)[None]) for number, row in enumerate(rows)]
  add("batch", lambda: [decode(*baseline.prefill(*single)) for single in singles])
