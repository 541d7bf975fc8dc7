"""A disk that is full, for tests."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import resource


@contextlib.contextmanager
def file_size(most: int) -> Iterator[None]:
  """A context in which files cannot grow beyond so many bytes."""
  before = resource.getrlimit(resource.RLIMIT_FSIZE)
  resource.setrlimit(resource.RLIMIT_FSIZE, (most, before[1]))
  try:
    yield
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
