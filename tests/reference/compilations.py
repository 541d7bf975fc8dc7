"""Counts what XLA compiles."""

from __future__ import annotations

import contextlib

import jax

_compiled: list[str] = []
jax.monitoring.register_event_duration_secs_listener(
  lambda name, _, **kwargs: _compiled.append(name) if name == "/jax/core/compile/backend_compile_duration" else None
)


@contextlib.contextmanager
def compilations():
  """A list that holds, once the block is left, an entry for every program XLA compiled in it."""
  start, seen = len(_compiled), []
  yield seen
  seen.extend(_compiled[start:])
