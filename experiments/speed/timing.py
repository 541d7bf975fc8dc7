"""Seconds of functions, measured in turn, and what this machine can do at best."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import functools
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm


@dataclasses.dataclass(frozen=True)
class _Entry:
  """A function of a `Clock`, with what precedes it and what it waits for."""

  function: Callable[..., Any]
  prepare: Callable[[], tuple | None]
  wait: Callable[[], Any]


class Clock:
  """Seconds of functions that are called in turn, so that a machine that slows down slows all of them.

  Attributes:
    seconds: name of each function to its seconds, one number per round.
  """

  def __init__(self):
    self._entries: dict[str, _Entry] = {}
    self.seconds: dict[str, list[float]] = {}

  def add(
    self,
    name: str,
    function: Callable[..., Any],
    prepare: Callable[[], tuple | None] = lambda: None,
    wait: Callable[[], Any] = lambda: None,
  ) -> None:
    """Adds a function, which must return only when its work is done.

    Args:
      name: of the function.
      function: what is measured.
      prepare: called before every measurement and not measured; the function gets the tuple that it returns, if any.
      wait: called before and after the function; for devices on which a function returns before its work is done.
    """
    self._entries[name] = _Entry(function, prepare, wait)
    self.seconds[name] = []

  def run(self, rounds: int, record: Callable[[dict[str, float]], None] = lambda seconds: None) -> None:
    """Calls every function once per round, after a first round that does not count.

    Every other round goes backwards, so that what a function leaves behind does not always burden the same one.

    Args:
      rounds: that count.
      record: called after each of them with its seconds, by the name of the function.
    """
    with tqdm.tqdm(total=(rounds + 1) * len(self._entries), unit="call") as bar:
      for number in range(rounds + 1):
        for name in list(self._entries)[:: -1 if number % 2 else 1]:
          bar.set_description(name)
          seconds = _time(self._entries[name])
          if number:
            self.seconds[name].append(seconds)
          bar.update()
        if number:
          record({name: seconds[-1] for name, seconds in self.seconds.items()})

  def median(self, name: str) -> float:
    """Median seconds of a function."""
    return float(np.median(self.seconds[name]))

  def best_rate(self, limits: Mapping[str, Limit]) -> float:
    """Most work per second of any limit in any round."""
    return max(limit.work / min(self.seconds[name]) for name, limit in limits.items())


def _time(entry: _Entry) -> float:
  arguments = entry.prepare() or ()
  entry.wait()
  began = time.perf_counter()
  entry.function(*arguments)
  entry.wait()
  return time.perf_counter() - began


@dataclasses.dataclass(frozen=True)
class Limit:
  """A program that runs as fast as the machine allows.

  Attributes:
    run: the program.
    work: its floating-point operations, or the bytes that it reads.
  """

  run: Callable[[], Any]
  work: float


def multiplications(dtype: str) -> dict[str, Limit]:
  """Matrix products, limited by arithmetic, in several sizes and by several libraries; the fastest is the machine's limit.

  Args:
    dtype: of the operands; results are float32, which is faster than a result in bfloat16 on some machines.
  """
  cpu = jax.default_backend() == "cpu"
  sizes = ((1024, 2048, 2048), (3136, 640, 1712), (832, 2816, 1024)) if cpu else ((8192, 8192, 8192),)
  product = jax.jit(functools.partial(jnp.matmul, preferred_element_type=jnp.float32))
  limits = {}
  for rows, inner, columns in sizes:
    work, shape = 2.0 * rows * inner * columns, f"{rows} x {inner} x {columns}"
    a, b = jnp.ones([rows, inner], dtype), jnp.ones([inner, columns], dtype)
    limits[f"product {shape}"] = Limit(lambda a=a, b=b: jax.block_until_ready(product(a, b)), work)
    if cpu and dtype == "float32":
      x, y = np.ones([rows, inner], np.float32), np.ones([inner, columns], np.float32)
      limits[f"product {shape}, NumPy"] = Limit(lambda x=x, y=y: x @ y, work)
  return limits


def readings() -> dict[str, Limit]:
  """Programs that read a large array once, limited by memory bandwidth; the fastest is the machine's limit."""
  rows, columns = 8192 if jax.default_backend() == "cpu" else 65536, 8192
  matrix, vector = jnp.ones([rows, columns], jnp.float32), jnp.ones([columns], jnp.float32)
  row = jnp.ones([1, rows], jnp.float32)
  programs = {
    "read by matrix times vector": (lambda matrix, vector, row: matrix @ vector),
    "read by row times matrix": (lambda matrix, vector, row: row @ matrix),
    "read by sum": (lambda matrix, vector, row: matrix.sum()),
    "read by sum of rows": (lambda matrix, vector, row: matrix.sum(axis=1)),
    "read by maximum": (lambda matrix, vector, row: matrix.max(axis=1)),
  }
  work = float(matrix.nbytes)
  run = lambda program: lambda: jax.block_until_ready(program(matrix, vector, row))
  limits = {name: Limit(run(jax.jit(program)), work) for name, program in programs.items()}
  if jax.default_backend() == "cpu":
    array = np.ones([rows, columns], np.float32)
    limits["read by NumPy"] = Limit(lambda: array @ np.ones(columns, np.float32), work)
  return limits
