"""Compiled programs that a test shares with the processes that it starts."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import tempfile

from experiments.running import compilation_cache


@contextlib.contextmanager
def shared() -> Iterator[str]:
  """A context in which every compiled program is kept; yields the directory, which ./test.sh shares among all tests."""
  with contextlib.ExitStack() as stack:
    directory = os.environ.get("JAX_COMPILATION_CACHE_DIR") or stack.enter_context(tempfile.TemporaryDirectory())
    stack.enter_context(compilation_cache.kept_in(directory, 0.0))
    yield directory
