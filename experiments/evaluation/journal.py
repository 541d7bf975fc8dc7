"""What the processes that share an evaluation have finished: a journal each, read by all."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

from experiments.journal import Journal


def write_atomically(path: pathlib.Path, content: str | bytes, process_index: int = 0) -> None:
  """Writes a whole file or, if killed, none; processes that write the same file at once do not meet."""
  partial = path.with_name(f"{path.name}.partial-{process_index}")
  partial.write_bytes(content.encode() if isinstance(content, str) else content)
  os.replace(partial, path)


class Shared:
  """The finished batches of all processes that share a directory."""

  def __init__(self, directory: pathlib.Path, settings: dict[str, Any], process_index: int = 0):
    """Opens this process's journal.

    Args:
      directory: of the journals.
      settings: as for `Journal`, which raises what it raises.
      process_index: of this process.
    """
    directory.mkdir(parents=True, exist_ok=True)
    self._directory = directory
    self._own = Journal(directory / f"{process_index:05d}.jsonl", settings)

  def entries(self) -> dict[int, dict[str, Any]]:
    """By number, every finished batch of every process; a line that a kill cut off is none."""
    found = {}
    for path in sorted(self._directory.glob("*.jsonl")):
      for line in path.read_bytes().splitlines(keepends=True)[1:]:
        if line.endswith(b"\n"):
          entry = json.loads(line)
          found[entry["batch"]] = entry
    return found

  def append(self, entry: dict[str, Any]) -> None:
    """Adds a finished batch, on disk before this returns."""
    self._own.append(entry)

  def close(self) -> None:
    self._own.close()
