"""What a run was: settings, hashes of what it read, versions of what computed it."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
from importlib import metadata
import pathlib
import platform
from typing import Any

import jax

_PACKAGES = ("jax", "jaxlib", "flax", "transformers", "tokenizers", "numpy", "pillow", "av")


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def make(settings: dict[str, Any], checkpoint: pathlib.Path, data: Iterable[pathlib.Path]) -> dict[str, Any]:
  """All that a run's answers depend on; a run is resumed only if all of it is the same.

  Args:
    settings: of the flags.
    checkpoint: the model's directory.
    data: the benchmark files.
  """
  device = jax.devices()[0]
  return {
      **settings,
      "checkpoint": {path.name: digest(path) for path in sorted(checkpoint.iterdir()) if path.is_file()},
      "data": {path.name: digest(path) for path in data},
      "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
      "device": f"{device.platform} {device.device_kind}",
  }
