"""Seconds of functions, measured in turn, and what this machine can do at best."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
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

  def run(self, rounds: int) -> None:
    """Calls every function once per round, after a first round that does not count.

    Every other round goes backwards, so that what a function leaves behind does not always burden the same one.
    """
    with tqdm.tqdm(total=(rounds + 1) * len(self._entries), unit="call") as bar:
      for number in range(rounds + 1):
        for name in list(self._entries)[:: -1 if number % 2 else 1]:
          bar.set_description(name)
          seconds = _time(self._entries[name])
          if number:
            self.seconds[name].append(seconds)
          bar.update()

  def median(self, name: str) -> float:
    """Median seconds of a function."""
    return float(np.median(self.seconds[name]))


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


def multiplication(dtype: str) -> Limit:
  """A large matrix product, limited by arithmetic."""
  rows, size = (1024, 2048) if jax.default_backend() == "cpu" else (8192, 8192)
  a, b = jnp.ones([rows, size], dtype), jnp.ones([size, size], dtype)
  product = jax.jit(lambda a, b: a @ b)
  return Limit(lambda: jax.block_until_ready(product(a, b)), 2.0 * rows * size * size)


def reading(dtype: str) -> Limit:
  """The product of a large matrix and a vector, limited by memory bandwidth."""
  matrix = jnp.ones([8192 if jax.default_backend() == "cpu" else 16384, 8192], dtype)
  vector = jnp.ones([8192], dtype)
  product = jax.jit(lambda matrix, vector: matrix @ vector)
  return Limit(lambda: jax.block_until_ready(product(matrix, vector)), float(matrix.nbytes))
