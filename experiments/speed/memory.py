"""Most memory that a function takes, as the system and the device count it."""

from __future__ import annotations

from collections.abc import Callable
import pathlib
from typing import Any

import jax

_PROCESS = pathlib.Path("/proc/self")


def peak(function: Callable[[], Any]) -> dict[str, int | None]:
  """Calls a function and returns the bytes in use at its peak, whatever else the process holds included.

  Args:
    function: returns when its work is done.

  Returns:
    `process`: resident memory of this process, during the call alone where Linux can restart its count, else None.
    `device`: of the first device since the process began, which cannot be restarted; None where it keeps no count, as CPUs.
  """
  restarted = _restart()
  function()
  statistics = jax.local_devices()[0].memory_stats() or {}
  return {"process": _resident() if restarted else None, "device": statistics.get("peak_bytes_in_use")}


def _restart() -> bool:
  """Restarts the count of the most resident memory; see proc_pid_clear_refs(5)."""
  try:
    (_PROCESS / "clear_refs").write_text("5")
  except OSError:
    return False
  return True


def _resident() -> int:
  """Bytes of `VmHWM`; see proc_pid_status(5)."""
  lines = (_PROCESS / "status").read_text().splitlines()
  return 1024 * int(next(line for line in lines if line.startswith("VmHWM:")).split()[1])
