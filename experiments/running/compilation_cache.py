"""Where JAX keeps compiled programs, and when it lets them go."""

from __future__ import annotations

from collections.abc import Iterator
import contextlib
import os
import pathlib

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

# Programs that compile faster than this are not worth a file.
_LEAST_SECONDS = 0.5


def keep(directory: str) -> None:
  """Keeps compiled programs in a directory from now on."""
  jax.config.update("jax_compilation_cache_dir", os.path.expanduser(directory))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)


@contextlib.contextmanager
def kept_in(directory: str | None, least_seconds: float = _LEAST_SECONDS) -> Iterator[None]:
  """A context in which compiled programs are kept in a directory, or, if it is None, nowhere: to measure compile times.

  Args:
    directory: an existing directory, or None.
    least_seconds: programs that compile faster are not kept.
  """
  wanted = {
    "jax_enable_compilation_cache": directory is not None,
    "jax_compilation_cache_dir": directory,
    "jax_persistent_cache_min_compile_time_secs": least_seconds,
  }
  before = {name: getattr(jax.config, name) for name in wanted}

  def update(values):
    for name, value in values.items():
      jax.config.update(name, value)
    jax_cache.reset_cache()

  update(wanted)
  try:
    yield
  finally:
    update(before)


def release_if_many(maps: str = "/proc/self/maps", limit: str = "/proc/sys/vm/max_map_count") -> bool:
  """Lets go of all compiled programs if this process has used half of its memory maps; the next call compiles again.

  Every program for a CPU takes some tens of maps, and XLA crashes where the system refuses more. Systems other than Linux
  set no such limit.

  Args:
    maps: the file with one line per memory map of this process.
    limit: the file with the largest number of maps.

  Returns:
    Whether programs were let go.
  """
  used, allowed = pathlib.Path(maps), pathlib.Path(limit)
  if not (used.exists() and allowed.exists()):
    return False
  many = len(used.read_bytes().splitlines()) > int(allowed.read_text()) // 2
  if many:
    jax.clear_caches()
  return many
