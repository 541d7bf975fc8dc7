"""manifest.json: a run's settings, hashes of the files it read, and versions of the packages that computed it."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
from importlib import metadata
import pathlib
import platform
from typing import Any

import jax

import hawk_jax

_PACKAGES = ("jax", "jaxlib", "flax", "transformers", "tokenizers", "numpy", "pillow", "av")


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def make(settings: dict[str, Any], checkpoint: pathlib.Path, data: Iterable[pathlib.Path]) -> dict[str, Any]:
  """Everything that a run's answers depend on; a run is resumed only if all of it is the same.

  Args:
    settings: by name.
    checkpoint: the model's directory.
    data: the benchmark files.
  """
  device = jax.devices()[0]
  return {
    **settings,
    "checkpoint": {name: digest(checkpoint / name) for name in _files(checkpoint)},
    "data": {path.name: digest(path) for path in data},
    "versions": {
      "hawk_jax": hawk_jax.__version__,
      "python": platform.python_version(),
      **{name: metadata.version(name) for name in _PACKAGES},
    },
    "device": f"{device.platform} {device.device_kind}",
  }


def _files(directory: pathlib.Path) -> list[str]:
  """Paths of all files, those in folders included (Orbax keeps arrays there), except hidden ones such as .git."""
  paths = [path.relative_to(directory) for path in directory.rglob("*") if path.is_file()]
  return sorted(str(path) for path in paths if not any(part.startswith(".") for part in path.parts))
