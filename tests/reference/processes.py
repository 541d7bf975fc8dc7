"""The environment of processes that tests start."""

from __future__ import annotations

import os
import sys


def environment(*xla_flags: str) -> dict[str, str]:
  """That of a process that runs on the CPU and imports what this one does.

  Args:
    *xla_flags: beside those of this process.
  """
  flags = " ".join([os.environ.get("XLA_FLAGS", ""), *xla_flags])
  return {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": os.pathsep.join(sys.path)}
