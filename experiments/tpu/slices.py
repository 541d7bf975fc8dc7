"""Slices of TPUs that are not at hand."""

from __future__ import annotations

import importlib.util
import os

import jax
from jax.experimental import topologies

from experiments.tpu import hlo


def no_tpu() -> None:
  """Keeps JAX and libtpu from looking for TPUs; must be called before JAX looks for devices."""
  jax.config.update("jax_platforms", "cpu")
  os.environ.update(TPU_SKIP_MDS_QUERY="1", ALLOW_MULTIPLE_LIBTPU_LOAD="1")


def slice_devices(topology: str) -> tuple[hlo.Chip, list[jax.Device]]:
  """The chip and the devices of a slice, to compile for.

  Args:
    topology: such as v5e:2x4.

  Raises:
    ValueError: an unknown chip, a slice that does not exist, or no libtpu.
  """
  kind = topology.partition(":")[0]
  if kind not in hlo.CHIPS:
    raise ValueError(f"topology: got {topology!r}, must be like v5e:2x4 with one of {', '.join(hlo.CHIPS)}")
  if importlib.util.find_spec("libtpu") is None:
    raise ValueError("topology: compiling for TPUs needs libtpu, install requirements-tpu.txt")
  try:
    return hlo.CHIPS[kind], list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
  except Exception as error:  # libtpu raises exceptions of several kinds
    raise ValueError(f"topology: {topology!r} is no slice that libtpu knows ({str(error).splitlines()[0]})") from error
