"""Output directories, and files that are written whole or not at all."""

from __future__ import annotations

import atexit
from collections.abc import Iterable, Iterator
import contextlib
import errno
import fcntl
import functools
import os
import pathlib
import shutil
import tempfile

import jax

from experiments.running import remote

_SMALL_FILES = 1 << 20  # bytes of the directories and metadata that a writer adds


def absolute(value: str) -> pathlib.Path:
  """A path that the user gave, in which ~ is the home directory."""
  return pathlib.Path(os.path.expanduser(value)).absolute()


def output_directory(name: str, value: str, shared: bool = False, results: Iterable[str] = ()) -> pathlib.Path:
  """Makes a directory and checks that it can be written to, before any work is done.

  Results belong to the first process: the others get a directory that is deleted when they end, and within it what is below
  a directory that they got. Of a remote directory, such as gs://bucket/name, it is a local mirror.

  Args:
    name: of the setting.
    value: the directory.
    shared: all processes get it, and see what the others write.
    results: names of files that will be written into it.

  Raises:
    ValueError: it cannot be made or written to, or holds a directory in the place of a result.
  """
  if jax.process_index() and not shared:
    value = _own(value)
  if remote.is_remote(value):
    return remote.Mirror(name, value, pull=shared).path
  path = absolute(value)
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path) as file:
      file.write(b"\0")
  except OSError as error:
    reason = "it is a file" if isinstance(error, FileExistsError) else error.strerror
    raise ValueError(f"{name}: cannot write to {str(value)!r} ({reason})") from error
  for result in results:
    if (path / result).is_dir():
      raise ValueError(f"{name}: {path / result} is a directory, a file of this name is to be written")
  return path


def _own(value: str) -> str:
  """The directory that a process other than the first has in place of another."""
  root = _own_root()
  return value if value.startswith(root) else os.path.join(root, value.replace("://", "/").lstrip("/"))


@functools.cache
def _own_root() -> str:
  root = tempfile.mkdtemp()
  atexit.register(shutil.rmtree, root, ignore_errors=True)
  return root


class InUseError(ValueError):
  """Another run is using a directory."""


@contextlib.contextmanager
def resumable_directory(
  name: str, value: str, shared: bool = False, results: Iterable[str] = (), alone: bool = True
) -> Iterator[pathlib.Path]:
  """A context with an output directory in which an interrupted run resumes, and which no other run can have meanwhile.

  The first process holds a lock on the directory, which ends with the process however that ends. File systems that have no
  locks of directories, such as NFS, leave it to the journals to refuse a second run. A remote directory is not locked.

  Args:
    name: of the setting.
    value: the directory.
    shared: as for `output_directory`.
    results: as for `output_directory`.
    alone: False lets several runs have it at the same time, which must then keep apart themselves.

  Raises:
    InUseError: another run has it.
    ValueError: as `output_directory`.
  """
  path = output_directory(name, value, shared, results)
  lock = os.open(path, os.O_RDONLY)
  try:
    if alone and not jax.process_index():
      try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      except BlockingIOError as error:
        raise InUseError(f"{name}: another run is using {path}; wait until it ends, or give another directory") from error
      except OSError:
        pass
    yield path
  except KeyboardInterrupt as error:
    raise KeyboardInterrupt(f"the same command resumes with what is in {value}") from error
  finally:
    os.close(lock)


@contextlib.contextmanager
def locked(directory: pathlib.Path) -> Iterator[None]:
  """A context that one run at a time is in; others wait. File systems that have no locks of directories let all in."""
  lock = os.open(directory, os.O_RDONLY)
  try:
    with contextlib.suppress(OSError):
      fcntl.flock(lock, fcntl.LOCK_EX)
    yield
  finally:
    os.close(lock)


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
  """A context whose operating system errors name a file; those of writes, such as a full disk, do not by themselves."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A context that writes a file beside `path`, which takes its place at the end.

  The file has always the same name, so that the next writer replaces what a killed one left. Writers that may run at the
  same time must take turns, see `locked`.

  Raises:
    OSError: it cannot be written; what was there before is unchanged.
  """
  partial = path.with_name(path.name + ".partial")
  with naming(path):
    try:
      yield partial
      os.replace(partial, path)
    except BaseException:
      partial.unlink(missing_ok=True)
      raise


def write(path: pathlib.Path, content: str | bytes) -> None:
  """Writes a file atomically, as `replacing` does."""
  with replacing(path) as partial:
    partial.write_bytes(content.encode() if isinstance(content, str) else content)


def check_space(path: pathlib.Path, size: int) -> None:
  """Checks that a disk has room, for writers such as Orbax, which report a full disk in pages of traceback.

  Args:
    path: a directory.
    size: in bytes.

  Raises:
    OSError: it has less.
  """
  if shutil.disk_usage(path).free < size + _SMALL_FILES:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
