"""Devices and processes that share the work.

All processes run the same program on the same data, each on its own devices; the first prints and writes results.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
from importlib.util import find_spec
import os
import signal
import sys
from typing import NoReturn

import jax
from jax.experimental import multihost_utils
import numpy as np

from experiments.running import settings
from experiments.running.settings import option
from models import sharding

_LOG_LEVEL = "TF_CPP_MIN_LOG_LEVEL"  # of JAX's C++ code; 4 is silence


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options(settings.Checked):
  """Settings of a process, for commands only."""

  compilation_cache: str = option(
    os.path.join("~", ".cache", "hawk_jax"), "Directory that keeps compiled programs for the next start; empty: none."
  )
  distributed: bool = option(
    False,
    "Whether this is one of several processes. On TPU pods and under Slurm, JAX finds the "
    "others itself; elsewhere coordinator_address, num_processes and process_id are needed.",
  )
  coordinator_address: str | None = option(None, "HOST:PORT of the first process.")
  num_processes: int | None = option(None, "Number of processes.", least=1)
  process_id: int | None = option(None, "Number of this process, from 0.", least=0)
  heartbeat_seconds: int = option(
    100, "After so many seconds without an answer a process counts as dead, and all others end with an error.", least=1
  )


def join(options: Options) -> None:
  """Chooses the platform, and connects to the other processes.

  Raises:
    ValueError: flags that contradict each other, or processes that cannot be found.
  """
  _leave_libtpu_alone()
  explicit = (options.coordinator_address, options.num_processes, options.process_id)
  if not options.distributed:
    if any(value is not None for value in explicit):
      raise ValueError("distributed: coordinator_address, num_processes and process_id need it")
    return
  if len({value is None for value in explicit}) > 1:
    raise ValueError("distributed: give all of coordinator_address, num_processes and process_id, or none of them")
  if None not in explicit and options.process_id >= options.num_processes:
    raise ValueError(f"process_id: got {options.process_id}, must be below num_processes, {options.num_processes}")
  _report_the_death_of_others()
  try:
    jax.distributed.initialize(*explicit, heartbeat_timeout_seconds=options.heartbeat_seconds)
  except (RuntimeError, ValueError) as error:
    raise ValueError(f"distributed: {error}") from error


def check_alone(what: str) -> None:
  """Refuses several processes.

  Args:
    what: does not share its work, in the message.

  Raises:
    ValueError: this is one of several processes.
  """
  if jax.process_count() > 1:
    raise ValueError(f"distributed: {what} runs in one process")


def leave(message: str, status: int) -> NoReturn:
  """Ends the process with a line on standard error."""
  print(message, file=sys.stderr, flush=True)
  if jax.distributed.is_initialized():
    sys.stdout.flush()
    os._exit(status)  # JAX would wait minutes for the others to end too
  sys.exit(status)


def _leave_libtpu_alone() -> None:
  """Keeps JAX from trying libtpu on a machine without a TPU, where it prints errors about the names of hosts.

  JAX looks for TPUs when it is imported, and sets its platforms if there are any. Where there is no `jax_plugins`, no plugin
  for other accelerators is installed.
  """
  if jax.config.jax_platforms is None and find_spec("libtpu") and not find_spec("jax_plugins"):
    jax.config.update("jax_platforms", "cpu")


def _report_the_death_of_others() -> None:
  """Ends this process with a line and an exit status when another one has died.

  JAX's C++ code would write its stack to standard error and call abort(). Its log level is read when JAX is imported, so it
  takes a new start to change it.
  """
  if os.environ.get(_LOG_LEVEL) == "1":  # JAX sets it where the user has not
    os.execve(sys.executable, sys.orig_argv, {**os.environ, _LOG_LEVEL: "4"})
  ctypes.CDLL(None).signal(signal.SIGABRT, _aborted)


@ctypes.CFUNCTYPE(None, ctypes.c_int)
def _aborted(number: int) -> None:
  """What abort() calls."""
  del number
  message = "error: another process of this run has died or cannot be reached; start all of them again"
  os.write(2, f"\n{message} ({_LOG_LEVEL}=0 shows what JAX reports)\n".encode())
  os._exit(1)


@contextlib.contextmanager
def only_first_prints():
  """A context in which only the first process prints; what the others print is discarded."""
  with contextlib.ExitStack() as stack:
    if jax.process_index():
      stack.enter_context(contextlib.redirect_stdout(stack.enter_context(open(os.devnull, "w"))))
    yield


def mesh(spec: str | None, devices=None) -> jax.sharding.Mesh | None:
  """A mesh over the devices of all processes; None on a single device without a spec.

  Args:
    spec: as for `models.sharding.make_mesh`.
    devices: the devices to use instead, such as those of this process, if processes do not all run the same programs.

  Raises:
    ValueError: a mesh that these devices cannot form.
  """
  devices = jax.devices() if devices is None else devices
  return None if spec is None and len(devices) == 1 else sharding.make_mesh(spec, devices)


def from_first(content: bytes) -> bytes:
  """The first process's content, in all processes."""
  if jax.process_count() == 1:
    return content
  size = int(multihost_utils.broadcast_one_to_all(np.int32(len(content))))
  padded = np.frombuffer(content[:size].ljust(size, b"\0"), np.uint8)
  return multihost_utils.broadcast_one_to_all(padded).tobytes() if size else b""
