"""Paths such as gs://bucket/name: inputs are copied to this machine, and output directories are mirrored.

Everything else works on local files. An input, a file or a directory, is copied once to ~/.cache/hawk_jax/remote, and again
when it has changed. An output directory is a local one whose files are uploaded while the run goes on and when it ends; what
is there already is downloaded first, so that runs resume, and a shared one also brings what other processes upload.

`etils.epath` knows gs://, s3:// and others; each needs its package (gcsfs, s3fs).
"""

from __future__ import annotations

import atexit
import dataclasses
import hashlib
import pathlib
import re
import tempfile
import threading
from typing import Any

from etils import epath

_SECONDS = 10.0  # between uploads
_CACHE = pathlib.Path("~/.cache/hawk_jax/remote")
# A setting is a path, or NAME=path.
_URL = re.compile(r"(?P<name>[^=:/]+=)?(?P<url>[a-z][a-z0-9]+://.+)")
# Settings that are made, not read.
_OUTPUTS = ("output_dir", "results_dir")
_SCHEMES = ("gs", "s3", "az")


def is_remote(value: Any) -> bool:
  """Whether a path is on another machine."""
  return isinstance(value, str) and value.partition("://")[0] in _SCHEMES and "://" in value


def check_local(name: str, value: str) -> None:
  """Refuses a remote directory where checkpoints are written.

  They are directories that are renamed when they are complete, which a mirror, file by file, would not keep apart from those
  that are not.

  Args:
    name: of the setting.
    value: the directory.

  Raises:
    ValueError: it is remote.
  """
  if is_remote(value):
    raise ValueError(f"{name}: got {value!r}, must be a local or mounted directory, because checkpoints are written to it")


def fetched(settings: Any) -> Any:
  """Settings, a dataclass, with a local copy in place of every remote input.

  Raises:
    ValueError: what cannot be read, by the setting's name.
  """
  changes = {}
  for field in dataclasses.fields(settings):
    value = getattr(settings, field.name)
    if field.name in _OUTPUTS:
      continue
    local = tuple(_fetch_setting(field.name, one) for one in value) if isinstance(value, tuple) else None
    local = _fetch_setting(field.name, value) if local is None else local
    if local != value:
      changes[field.name] = local
  return dataclasses.replace(settings, **changes) if changes else settings


def _fetch_setting(name: str, value: Any) -> Any:
  found = _URL.fullmatch(value) if isinstance(value, str) else None
  return (found["name"] or "") + str(fetch(name, found["url"])) if found and is_remote(found["url"]) else value


def fetch(name: str, url: str) -> pathlib.Path:
  """The local copy of a remote file or directory.

  Args:
    name: of the setting.
    url: of the file or directory.

  Raises:
    ValueError: it is not there, or cannot be read.
  """
  source = epath.Path(url)
  try:
    files = _files(source) if source.is_dir() else {"": source}
    stamps = {relative: _stamp(path) for relative, path in files.items()}
    key = hashlib.sha256(repr((url, sorted(stamps.items()))).encode()).hexdigest()[:16]
    target = _CACHE.expanduser() / key / source.name
    if target.exists():
      return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as partial:
      copy = pathlib.Path(partial) / source.name
      for relative, path in files.items():
        _write(copy / relative if relative else copy, path.read_bytes())
      copy.rename(target)
    return target
  except Exception as error:  # each kind of storage raises its own
    raise ValueError(f"{name}: cannot read {url} ({_reason(error)})") from error


_open: list[Mirror] = []


@atexit.register  # for callers that do not
def close_all() -> None:
  """Uploads everything for the last time.

  Raises:
    ValueError: as `Mirror.close`.
  """
  for mirror in list(_open):
    mirror.close()


class Mirror:
  """A local directory whose files are uploaded.

  Attributes:
    path: of the local directory.
  """

  def __init__(self, name: str, url: str, pull: bool):
    """Downloads what is there, and uploads from now on, until the process ends.

    Args:
      name: of the setting.
      url: of the remote directory.
      pull: whether to bring files that others upload, again and again.

    Raises:
      ValueError: it cannot be read or written.
    """
    self._holder = tempfile.TemporaryDirectory(prefix="hawk_jax_")
    self.path = pathlib.Path(self._holder.name)
    self._remote, self._pull, self._lock = epath.Path(url), pull, threading.Lock()
    self._local_stamps: dict[str, Any] = {}
    self._remote_stamps: dict[str, Any] = {}
    try:
      self._remote.mkdir(parents=True, exist_ok=True)
      self._download()
      probe = self._remote / ".writable"
      probe.write_bytes(b"")
      probe.unlink()
    except Exception as error:
      raise ValueError(f"{name}: cannot write to {url} ({_reason(error)})") from error
    print(f"{url} is mirrored in {self.path}", flush=True)
    self._ended = threading.Event()
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()
    _open.append(self)

  def sync(self) -> None:
    """Uploads what has changed here; with `pull`, downloads what has changed there."""
    with self._lock:
      for path in sorted(self.path.rglob("*")):
        relative, stamp = path.relative_to(self.path).as_posix(), None
        try:
          stamp = (path.stat().st_mtime_ns, path.stat().st_size)
          if not path.is_file() or path.name.endswith(".partial") or self._local_stamps.get(relative) == stamp:
            continue
          content = path.read_bytes()
        except FileNotFoundError:  # renamed in the meantime
          continue
        target = self._remote / relative
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        self._local_stamps[relative], self._remote_stamps[relative] = stamp, _stamp(target)
      if self._pull:
        self._download()

  def close(self) -> None:
    """Uploads for the last time.

    Raises:
      ValueError: not everything could be uploaded; the local directory then stays.
    """
    _open.remove(self)
    self._ended.set()
    self._thread.join()
    try:
      self.sync()
    except Exception as error:
      kept = self.path.rename(self.path.with_name(self.path.name + "_not_uploaded"))
      raise ValueError(f"cannot upload to {self._remote} ({_reason(error)}); the files are in {kept}") from error

  def _download(self) -> None:
    for relative, path in _files(self._remote).items():
      stamp = _stamp(path)
      if self._remote_stamps.get(relative) != stamp:
        target = self.path / relative
        _write(target, path.read_bytes())
        self._remote_stamps[relative] = stamp
        self._local_stamps[relative] = (target.stat().st_mtime_ns, target.stat().st_size)

  def _run(self) -> None:
    while not self._ended.wait(_SECONDS):
      try:
        self.sync()
      except Exception as error:  # the next time, or at the end, it may work
        print(f"cannot upload to {self._remote}: {_reason(error)}", flush=True)


def _files(directory: epath.Path) -> dict[str, epath.Path]:
  """All files below a directory, by relative path."""
  found: dict[str, epath.Path] = {}
  for path in directory.iterdir():
    if path.is_dir():
      found |= {f"{path.name}/{relative}": below for relative, below in _files(path).items()}
    else:
      found[path.name] = path
  return found


def _stamp(path: epath.Path) -> tuple[int, float]:
  stat = path.stat()
  return stat.length, stat.mtime


def _write(path: pathlib.Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def _reason(error: Exception) -> str:
  return f"{type(error).__name__}: {' '.join(str(error).split())}"
