"""Slices of TPUs: which ones exist, and a kernel compiled for one."""

import importlib.util
import unittest
from unittest import mock

from absl.testing import absltest
import jax
import jax.numpy as jnp

from experiments.tpu import hlo
from experiments.tpu import slices
from models import sharding
from models.attention import kernels

HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


class SlicesTest(absltest.TestCase):
  def test_bad_topology(self):
    with self.assertRaisesRegex(ValueError, "topology: got 'v9:2x4', must be like v5e:2x4 with one of v5e, v5p, v6e"):
      slices.slice_devices("v9:2x4")

  def test_no_libtpu(self):
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
      with self.assertRaisesRegex(ValueError, "libtpu, install requirements-tpu.txt"):
        slices.slice_devices("v5e:2x4")

  @unittest.skipUnless(HAS_LIBTPU, "needs libtpu, of requirements-tpu.txt")
  def test_kernel_compiles_for_a_slice(self):
    slices.no_tpu()
    chip, devices = slices.slice_devices("v5e:2x4")
    mesh = sharding.make_mesh("fsdp:2,tensor:4", devices)
    put = lambda *shape: jax.ShapeDtypeStruct(
      shape, jnp.bfloat16, sharding=sharding.sharding(mesh, shape, sharding.BATCH, None, "tensor")
    )

    def attend(query, key, value):
      self.assertEqual(kernels.choose(mesh.devices.flat[0], query, key), "pallas")
      return kernels.attend("pallas", query, key, value, None, causal=True, mesh=mesh, rows=sharding.BATCH, heads="tensor")

    compiled = jax.jit(attend).lower(put(2, 1100, 8, 80), put(2, 1100, 4, 80), put(2, 1100, 4, 80)).compile()
    cost = hlo.read(compiled, 0.0)
    # Per chip one row, two heads and 1,152 padded queries and keys; softmax comes on top of the products.
    products = 4 * 2 * 1152**2 * 80
    self.assertBetween(cost.kernel_flops, products, 1.1 * products)
    self.assertEqual(cost.collectives, {})
    self.assertLess(cost.temporaries, 16e6)
    self.assertGreater(hlo.predict(cost, chip, causal=True).total, 0)
    with self.assertRaisesRegex(ValueError, "topology: 'v5e:3x5' is no slice"):
      slices.slice_devices("v5e:3x5")


if __name__ == "__main__":
  absltest.main()
