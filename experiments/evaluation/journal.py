"""What has been computed, kept so that a kill at any moment loses nothing that was finished.

Every process appends a line a batch to a file of its own. A line that a kill cut off is no line: it is dropped, and its
batch computed again.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any


def write_atomically(path: pathlib.Path, content: str | bytes, process_index: int = 0) -> None:
  """Writes a whole file or, if killed, none; processes that write the same file at once do not meet."""
  partial = path.with_name(f"{path.name}.partial-{process_index}")
  partial.write_bytes(content.encode() if isinstance(content, str) else content)
  os.replace(partial, path)


class Journal:
  """The finished batches of all processes that share a directory."""

  def __init__(self, directory: pathlib.Path, process_index: int = 0):
    self.directory = directory
    directory.mkdir(parents=True, exist_ok=True)
    self.own = directory / f"{process_index:05d}.jsonl"
    whole = self.own.read_bytes() if self.own.exists() else b""
    if not whole.endswith(b"\n") and whole:
      os.truncate(self.own, whole.rfind(b"\n") + 1)

  def entries(self) -> dict[int, dict[str, Any]]:
    """By number, every finished batch of every process."""
    found = {}
    for path in sorted(self.directory.glob("*.jsonl")):
      for line in path.read_bytes().splitlines(keepends=True):
        if line.endswith(b"\n"):
          entry = json.loads(line)
          found[entry["batch"]] = entry
    return found

  def append(self, entry: dict[str, Any]) -> None:
    """Adds a finished batch, on disk before this returns."""
    with open(self.own, "ab") as file:
      file.write(json.dumps(entry, ensure_ascii=False).encode() + b"\n")
      file.flush()
      os.fsync(file.fileno())
