"""Attention kernels split over simulated devices; a program of its own, since devices are counted at start.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.reference.kernel_checks
"""

from __future__ import annotations

from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from models import sharding
from models.attention import attention
from models.attention import kernels


def local(query, key, value, lengths, *, causal):
  """Stands for a kernel: sees only a device's own part."""
  return attention(query, key, value, lengths=lengths, causal=causal)


def main():
  rng = np.random.default_rng(0)
  # Key/value heads fewer than the axis, a row that does not divide it, and heads over all axes.
  for spec, batch, heads, groups, axes in (
    ("fsdp:2,tensor:4", 2, 8, 2, "tensor"),
    ("tensor:8", 1, 24, 4, "tensor"),
    ("fsdp:8", 1, 16, 16, ("tensor", "fsdp", "data")),
  ):
    mesh = sharding.make_mesh(spec)
    shapes = (batch, 6, heads, 4), (batch, 6, groups, 4), (batch, 6, groups, 4)
    query, key, value = (jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes)
    lengths = jnp.asarray(rng.integers(1, 7, batch), jnp.int32)
    with mock.patch.object(kernels, "_pallas", local):
      split = jax.jit(
        lambda q, k, v, n, mesh=mesh, axes=axes: kernels.attend(
          "pallas", q, k, v, n, causal=False, mesh=mesh, rows=sharding.BATCH, heads=axes
        )
      )
      found = split(query, key, value, lengths)
    np.testing.assert_allclose(found, attention(query, key, value, lengths=lengths), atol=1e-5)
    print(spec, found.sharding.spec)


if __name__ == "__main__":
  main()
