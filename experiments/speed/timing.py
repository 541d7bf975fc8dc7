"""Seconds of functions, measured in turn, and what this machine can do at best."""

from __future__ import annotations

from collections.abc import Callable
import time

import jax
import jax.numpy as jnp
import numpy as np
import tqdm


class Clock:
  """Seconds of functions, called in turn."""

  def __init__(self):
    self.functions, self.seconds = {}, {}

  def add(self, name, function, prepare=lambda: None, wait=lambda: None):
    """Adds a function of what `prepare` returns; `prepare` is not timed."""
    self.functions[name] = (function, prepare, wait)
    self.seconds[name] = []

  def run(self, rounds: int) -> None:
    """Every function once a round, after a first round that does not count."""
    with tqdm.tqdm(total=(rounds + 1) * len(self.functions), unit="call") as bar:
      for number in range(rounds + 1):
        for name, (function, prepare, wait) in self.functions.items():
          bar.set_description(name)
          prepared = prepare()
          wait()
          began = time.perf_counter()
          function(*(() if prepared is None else prepared))
          wait()
          if number:
            self.seconds[name].append(time.perf_counter() - began)
          bar.update()

  def median(self, name) -> float:
    return float(np.median(self.seconds[name]))


def limits(dtype: str) -> tuple[Callable[[], object], float, Callable[[], object], float]:
  """Programs that run at a machine's limits.

  Returns:
    A matrix product, its floating-point operations, a matrix-vector product, and the bytes it reads.
  """
  large = jax.default_backend() != "cpu"
  size, rows = (8192, 8192) if large else (2048, 1024)
  a, b = jnp.ones([rows, size], dtype), jnp.ones([size, size], dtype)
  product = jax.jit(lambda a, b: a @ b)
  wide = jnp.ones([16384 if large else 8192, 8192], dtype)
  vector = jnp.ones([1, 8192], dtype)
  stream = jax.jit(lambda v, w: w @ v[0])
  return (lambda: jax.block_until_ready(product(a, b)), 2.0 * rows * size * size,
          lambda: jax.block_until_ready(stream(vector, wide)), float(wide.nbytes))
