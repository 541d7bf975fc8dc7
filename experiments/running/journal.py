"""Journals: what a long run has finished, one JSON object per line, so that an interrupted run resumes where it stopped."""

from __future__ import annotations

from collections.abc import Iterator
import fcntl
import json
import os
import pathlib
from typing import Any
import zlib

import tqdm

from experiments.running import files
from experiments.running import processes
from experiments.running import watching
from hawk_jax import checks


class Journal:
  """An append-only file whose first line holds the run's settings.

  Attributes:
    records: what has been appended, by this run and by earlier ones.
  """

  def __init__(self, path: pathlib.Path, settings: dict[str, Any], apart: bool = False, watch: watching.Watch | None = None):
    """Opens a journal, or starts one.

    Args:
      path: of the file.
      settings: everything that the records depend on.
      apart: this process has work and records of its own; otherwise all processes have the records of the first.
      watch: gets a step for every record.

    Raises:
      ValueError: the file is damaged, or belongs to a run with other settings, or to one that is still running.
      OSError: it cannot be written, or is a device or a pipe.
    """
    self._path, self._watch = pathlib.Path(path), watch
    checks.regular_file(self._path)
    self._file = open(self._path, "a+b", buffering=0)
    try:
      self._lock()
      self._file.seek(0)
      held = self._file.read()
      content = held if apart else processes.from_first(held)
      self.records, size, self._checksum = _parse(self._path, content, settings)
      self._file.truncate(min(len(held), size))
      if size:
        self._write(content[len(held) : size])  # in a process other than the first, its records
      else:
        self._append(settings)
    except BaseException:
      self._file.close()
      raise

  def remaining(self, total: int, unit: str) -> Iterator[int]:
    """Numbers of the records that are still missing, with a progress bar."""
    done = len(self.records)
    numbers = tqdm.trange(done, total, initial=done, total=total, unit=unit)
    return iter(numbers) if self._watch is None else self._watch.steps(numbers, done)

  def append(self, record: dict[str, Any], **metrics: float) -> None:
    """Adds a record, which is on disk when this returns.

    Args:
      record: to add.
      **metrics: numbers of this step, for the watch.

    Raises:
      OSError: it cannot be written; the records before it are unharmed.
    """
    # Numbers first: those of a step without a record are written again by the run that resumes.
    if self._watch is not None:
      self._watch.write(len(self.records) + 1, **metrics)
    self._append(record)
    self.records.append(record)

  def close(self) -> None:
    self._file.close()

  def _lock(self):
    try:
      fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      raise ValueError(f"output_dir: another run is writing {self._path}") from error

  def _append(self, record):
    line, checksum = _line(record, self._checksum)
    self._write(line)
    self._checksum = checksum

  def _write(self, content: bytes):
    with files.naming(self._path):
      while content:
        content = content[self._file.write(content) :]
      os.fsync(self._file.fileno())


def read(path: pathlib.Path, settings: dict[str, Any] | None = None) -> list[dict[str, Any]]:
  """The records of a journal that another process may be writing.

  Args:
    path: of the file.
    settings: of the run; None: any.

  Raises:
    ValueError: the file is damaged, or belongs to a run with other settings.
  """
  checks.regular_file(path)
  return _parse(path, path.read_bytes(), settings)[0]


def _parse(path: pathlib.Path, content: bytes, settings: dict[str, Any] | None) -> tuple[list[dict[str, Any]], int, int]:
  """The records in a file's content, how many of its bytes are complete lines, and the checksum of the last of them."""
  content = content[: content.rfind(b"\n") + 1]  # a line may have been cut off when the run was killed
  lines, checksum = [], 0
  for number, line in enumerate(content.splitlines(keepends=True), 1):
    record, checksum = _record(line, checksum)
    if record is None:
      raise ValueError(
        f"output_dir: {path}, line {number} is damaged; delete it and all lines after it, or give another directory"
      )
    lines.append(record)
  if lines and settings is not None and lines[0] != (settings := json.loads(json.dumps(settings))):
    differ = sorted(name for name in {*lines[0], *settings} if lines[0].get(name) != settings.get(name))
    raise ValueError(f"output_dir: {path} belongs to a run with other {', '.join(differ)}; give another directory")
  return lines[1:], len(content), checksum


def _line(record: dict[str, Any], before: int) -> tuple[bytes, int]:
  """A record as it is in the file, and its checksum, which goes on from that of the line before: none is lost or doubled."""
  checksum = zlib.crc32(json.dumps(record).encode(), before)
  return (json.dumps({**record, "crc32": checksum}) + "\n").encode(), checksum


def _record(line: bytes, before: int) -> tuple[dict[str, Any] | None, int]:
  """The record of a line and its checksum; None for a line that `_line` did not write after the line before."""
  try:
    record = json.loads(line)
    checksum = record.pop("crc32")
    return (record if (line, checksum) == _line(record, before) else None), checksum
  except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
    return None, 0
