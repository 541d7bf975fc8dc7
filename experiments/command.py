"""What every app here does first: one line for bad input instead of a traceback, a compilation cache that lasts, and the
devices and processes that share the work.

All processes run the same program on the same data, each on its own devices; the first prints and writes results.
"""

from __future__ import annotations

import atexit
import contextlib
import datetime
from importlib import metadata
import logging
import os
import pathlib
import shutil
import sys
import tempfile

from absl import app
from absl import flags
from absl import logging as absl_logging
import jax
from jax.experimental import multihost_utils
import numpy as np

from models import sharding

_CACHE = flags.DEFINE_string(
    "compilation_cache", os.path.join("~", ".cache", "hawk_jax"),
    "Directory where compiled programs are kept for the next start; empty: none.")
_MESH = flags.DEFINE_string(
    "mesh", None, "How models are spread over devices, like data:2,fsdp:2,tensor:2; by default all devices, up to 4 of them "
    "on tensor and the rest on fsdp.")
_DISTRIBUTED = flags.DEFINE_bool("distributed", False, "One of several processes; on TPU pods and under Slurm JAX finds the "
                                 "others by itself, else all of the next three flags are needed.")
_COORDINATOR = flags.DEFINE_string("coordinator_address", None, "HOST:PORT of the first process.")
_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many there are.", lower_bound=1)
_PROCESS = flags.DEFINE_integer("process_id", None, "Which one this is, from 0.", lower_bound=0)
_HEARTBEAT = flags.DEFINE_integer("heartbeat_seconds", 100, "A process that has been silent for so long counts as dead, and "
                                  "all end with an error.", lower_bound=1)


def run(main) -> None:
  """Runs an app: `main` takes no arguments; a ValueError it raises is printed without traceback, exit status 2."""

  def wrapped(argv):
    if len(argv) > 1:
      raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it tells of every backend it does not find
    if not flags.FLAGS["verbosity"].present:
      absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax tells of every file
    if _CACHE.value:
      jax.config.update("jax_compilation_cache_dir", os.path.expanduser(_CACHE.value))
      jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    try:
      _join()
      with _silence():
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


def _join() -> None:
  """Meets the other processes.

  Raises:
    ValueError: flags that do not go together, or others that cannot be found.
  """
  explicit = (_COORDINATOR.value, _PROCESSES.value, _PROCESS.value)
  if not _DISTRIBUTED.value:
    if any(value is not None for value in explicit):
      raise ValueError("distributed: coordinator_address, num_processes and process_id need it")
    return
  if len({value is None for value in explicit}) > 1:
    raise ValueError("distributed: give all of coordinator_address, num_processes and process_id, or none")
  if None not in explicit and _PROCESS.value >= _PROCESSES.value:
    raise ValueError(f"process_id: got {_PROCESS.value}, must be below num_processes, {_PROCESSES.value}")
  try:
    jax.distributed.initialize(*explicit, heartbeat_timeout_seconds=_HEARTBEAT.value)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"distributed: {error}") from error


@contextlib.contextmanager
def _silence():
  """Nothing is printed but by the first process."""
  with contextlib.ExitStack() as stack:
    if jax.process_index():
      stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
    yield


def mesh(devices=None) -> jax.sharding.Mesh | None:
  """What the flag asks for, over the devices of all processes; None on a single device.

  Args:
    devices: others instead; a process's own, and processes need not run the same programs.

  Raises:
    ValueError: a mesh that these devices cannot form.
  """
  devices = jax.devices() if devices is None else devices
  return None if _MESH.value is None and len(devices) == 1 else sharding.make_mesh(_MESH.value, devices)


def from_first(content: bytes) -> bytes:
  """What the first process has, in all of them."""
  if jax.process_count() == 1:
    return content
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
  padded = np.frombuffer(content[:size].ljust(size, b"\0"), np.uint8)
  return multihost_utils.broadcast_one_to_all(padded).tobytes() if size else b""


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


def output_directory(name: str, value: str, shared: bool = False) -> pathlib.Path:
  """Makes a directory and proves that it can be written to, before any work is done.

  Results are the first process's: the others get a directory that is deleted at their end.

  Args:
    name: of the flag.
    value: the directory.
    shared: all processes get it, and see what the others write.

  Raises:
    ValueError: it cannot be made or written to.
  """
  if jax.process_index() and not shared:
    value = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, value, ignore_errors=True)
  path = pathlib.Path(value).expanduser().absolute()
  try:
    path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=path):
      pass
  except OSError as error:
    raise ValueError(f"{name}: cannot write to {value!r} ({error.strerror})") from error
  return path
