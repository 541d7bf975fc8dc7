"""The machine and the packages that figures depend on, for reports."""

from __future__ import annotations

import datetime
from importlib import metadata
import os
import pathlib
import re

import jax


def default_dtype() -> str:
  """The dtype to compute in unless a flag names one: float32 on CPU, bfloat16 elsewhere."""
  return "float32" if jax.default_backend() == "cpu" else "bfloat16"


def device() -> str:
  """The machine in words."""
  kind = jax.devices()[0].device_kind
  return f"{os.cpu_count()} CPU cores" if jax.default_backend() == "cpu" else f"{jax.device_count()} x {kind}"


def processor() -> str:
  """The CPU's model, where Linux says it."""
  try:
    found = re.search(r"^model name\s*: (.+)$", pathlib.Path("/proc/cpuinfo").read_text(), re.MULTILINE)
  except OSError:
    found = None
  return found[1] if found else "unknown CPU"


def model_name(path_or_hub_id: str) -> str:
  """A checkpoint's name without its directory; of one that `experiments.train` wrote, the name of the run."""
  path = pathlib.PurePath(path_or_hub_id)
  return path.parent.name if path.name == "model" and path.parent.name else path.name


def versions() -> str:
  """Versions of the main packages."""
  return ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "flax", "transformers"))


def today() -> str:
  """The date in ISO format."""
  return datetime.date.today().isoformat()
