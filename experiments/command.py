"""What every app here does first: one line for bad input instead of a traceback, and a compilation cache that lasts."""

from __future__ import annotations

import datetime
from importlib import metadata
import logging
import os
import pathlib
import sys
import tempfile

from absl import app
from absl import flags
import jax

_CACHE = flags.DEFINE_string(
    "compilation_cache", os.path.join("~", ".cache", "hawk_jax"),
    "Directory where compiled programs are kept for the next start; empty: none.")


def run(main) -> None:
  """Runs an app: `main` takes no arguments; a ValueError it raises is printed without traceback, exit status 2."""

  def wrapped(argv):
    if len(argv) > 1:
      raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells of every backend it does not find
    if _CACHE.value:
      jax.config.update("jax_compilation_cache_dir", os.path.expanduser(_CACHE.value))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
      main()
    except ValueError as error:
      if flags.FLAGS.pdb or flags.FLAGS.pdb_post_mortem:
        raise
      print(f"error: {error}", file=sys.stderr)
      sys.exit(2)

  app.run(wrapped)


def default_dtype() -> str:
  """What to compute in where nobody says: float32 on CPU, bfloat16 elsewhere."""
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def device() -> str:
  """The machine in words, for reports."""
  kind = jax.devices()[0].device_kind
  return f"{os.cpu_count()} CPU cores" if jax.default_backend() == "cpu" else f"{jax.device_count()} x {kind}"


def model_name(path_or_hub_id: str) -> str:
  """A checkpoint's name without where it lies."""
  return pathlib.PurePath(path_or_hub_id).name


def versions() -> str:
  """Of the packages that figures depend on."""
  return ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax", "transformers"))


def today() -> str:
  """ISO date."""
  return datetime.date.today().isoformat()


def output_directory(name: str, value: str) -> pathlib.Path:
  """Makes a directory and proves that it can be written to, before any work is done.

  Args:
    name: of the flag.
    value: the directory.

  Raises:
    ValueError: it cannot be made or written to.
  """
  path = pathlib.Path(value).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise ValueError(f"{name}: cannot write to {value!r} ({error.strerror})") from error
  return path
