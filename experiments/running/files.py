"""Output directories, and files that are written whole or not at all."""

from __future__ import annotations

import atexit
import os
import pathlib
import shutil
import tempfile

import jax

from experiments.running import remote


def output_directory(name: str, value: str, shared: bool = False) -> pathlib.Path:
  """Makes a directory and checks that it can be written to, before any work is done.

  Results belong to the first process: the others get a directory that is deleted when they end. Of a remote directory, such
  as gs://bucket/name, it is a local mirror.

  Args:
    name: of the setting.
    value: the directory.
    shared: all processes get it, and see what the others write.

  Raises:
    ValueError: it cannot be made or written to.
  """
  if jax.process_index() and not shared:
    value = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, value, ignore_errors=True)
  if remote.is_remote(value):
    return remote.Mirror(name, value, pull=shared).path
  path = pathlib.Path(value).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise ValueError(f"{name}: cannot write to {value!r} ({error.strerror})") from error
  return path


def write(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file atomically."""
  partial = path.with_name(path.name + ".partial")
  partial.write_bytes(content.encode() if isinstance(content, str) else content)
  os.replace(partial, path)
