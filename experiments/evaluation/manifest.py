"""What a run was: settings, hashes of what it read, versions of what computed it."""

from __future__ import annotations

from collections.abc import Iterable
import hashlib
from importlib import metadata
import json
import pathlib
import platform
from typing import Any

import jax

from experiments.evaluation import journal

_PACKAGES = ("jax", "jaxlib", "flax", "transformers", "tokenizers", "numpy", "pillow", "av")


def digest(path: pathlib.Path) -> str:
  """SHA-256 of a file."""
  with open(path, "rb") as file:
    return hashlib.file_digest(file, "sha256").hexdigest()


def digests(directory: pathlib.Path) -> dict[str, str]:
  """SHA-256 of every file of a checkpoint."""
  return {path.name: digest(path) for path in sorted(directory.iterdir()) if path.is_file()}


def make(model: str, settings: dict[str, Any], checkpoint: pathlib.Path, data: Iterable[pathlib.Path]) -> dict[str, Any]:
  """A run's manifest; all of `identity` must agree for a run to be resumed.

  Args:
    model: what the user called it.
    settings: all that answers depend on.
    checkpoint: the model's directory.
    data: the files.
  """
  device = jax.devices()[0]
  return {
      "model": model,
      "identity": {
          "settings": settings,
          "checkpoint": digests(checkpoint),
          "data": {path.name: digest(path) for path in data},
      },
      "versions": {"python": platform.python_version(), **{name: metadata.version(name) for name in _PACKAGES}},
      "device": {"platform": device.platform, "kind": device.device_kind},
  }


def claim(path: pathlib.Path, manifest: dict[str, Any], process_index: int = 0) -> None:
  """Writes the manifest of a new run, or checks that an old one is of the same run.

  Args:
    path: of the file.
    manifest: of `make`.
    process_index: of the process that writes.

  Raises:
    ValueError: the directory holds a run with other settings, checkpoint or data; it names what differs.
  """
  if not path.exists():
    journal.write_atomically(path, json.dumps(manifest, indent=1, ensure_ascii=False) + "\n", process_index)
  try:
    before = json.loads(path.read_text())["identity"]
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(f"output_dir: {path} is not a manifest ({error})") from error
  differences = []
  for part, values in manifest["identity"].items():
    for name in sorted({*values, *before.get(part, {})}):
      ours, theirs = values.get(name), before.get(part, {}).get(name)
      if ours != theirs:
        differences.append(f"{name} was {theirs!r}, is {ours!r}")
  if differences:
    raise ValueError(f"output_dir: {path.parent} holds a run with other settings: {'; '.join(differences)}. Give another "
                     "directory, or the settings of that run")
