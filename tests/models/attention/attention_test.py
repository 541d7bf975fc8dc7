"""Attention kernels: which one runs where, the Pallas kernel against XLA's attention, and memory linear in length."""

import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
from jax.experimental.pallas import tpu as pltpu
import jax.numpy as jnp
import numpy as np

from models import cpu
from models import sharding
from models.attention import attention
from models.attention import dispatch
from models.attention import kernels
from models.qwen2_5_vl import vision
from tests.reference import processes

TPU = types.SimpleNamespace(platform="tpu")
HOPPER = types.SimpleNamespace(platform="gpu", compute_capability="9.0")


def draw(batch, queries, keys, heads, groups, size):
  rng = np.random.default_rng(0)
  shapes = (batch, queries, heads, size), (batch, keys, groups, size), (batch, keys, groups, size)
  return [jnp.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]


class KernelsTest(parameterized.TestCase):
  @parameterized.parameters(
    (TPU, "bfloat16", 4096, 4096, 128, "pallas"),
    (TPU, "float32", 65536, 65536, 80, "pallas"),
    (TPU, "float16", 4096, 4096, 128, None),
    (TPU, "bfloat16", 4096, 4096, 192, None),
    (TPU, "bfloat16", 577, 577, 64, None),
    (TPU, "bfloat16", 1, 4096, 128, None),
    (HOPPER, "bfloat16", 4096, 4096, 128, "cudnn"),
    (HOPPER, "float16", 4096, 4096, 80, "cudnn"),
    (HOPPER, "float32", 4096, 4096, 128, None),
    (HOPPER, "bfloat16", 4096, 4096, 36, None),
    (HOPPER, "bfloat16", 4096, 4096, 256, None),
    (types.SimpleNamespace(platform="gpu", compute_capability="7.5"), "bfloat16", 4096, 4096, 128, None),
    (types.SimpleNamespace(platform="gpu", compute_capability="gfx942"), "bfloat16", 4096, 4096, 128, None),
    (types.SimpleNamespace(platform="cpu"), "float32", 65536, 65536, 80, None),
  )
  def test_choice(self, device, dtype, queries, keys, size, expected):
    query = jax.ShapeDtypeStruct((1, queries, 16, size), dtype)
    key = jax.ShapeDtypeStruct((1, keys, 8, size), dtype)
    self.assertEqual(kernels.choose(device, query, key), expected)

  @parameterized.parameters((True, False), (False, True))
  def test_pallas_equals_xla(self, causal, padded):
    query, key, value = draw(2, 150, 150, 4, 2, 80)
    lengths = jnp.asarray([150, 97]) if padded else None
    mesh = sharding.make_mesh("data:1", jax.devices()[:1])
    with pltpu.force_tpu_interpret_mode():
      found = kernels.attend(
        "pallas", query, key, value, lengths, causal=causal, mesh=mesh, rows=sharding.BATCH, heads="tensor"
      )
    np.testing.assert_allclose(found, attention(query, key, value, lengths=lengths, causal=causal), atol=2e-5)

  @parameterized.parameters((True, False), (False, True), (True, True), (False, False))
  def test_cudnn_equals_xla(self, causal, padded):
    """The call that cuDNN gets, computed by XLA: cuDNN itself needs a GPU."""
    query, key, value = draw(2, 40, 40, 8, 2, 16)
    lengths = jnp.asarray([40, 17]) if padded else None
    found = kernels._cudnn(query, key, value, lengths, causal=causal, implementation="xla")
    expected = attention(query, key, value, lengths=lengths, causal=causal)
    np.testing.assert_allclose(found, expected, atol=2e-6)

  def test_whole_blocks(self):
    for length, padded, block in ((130, 256, 128), (1100, 1152, 128), (4160, 4352, 256), (2000, 2048, 512)):
      x = jax.eval_shape(lambda x: kernels._whole_blocks(x)[0], jax.ShapeDtypeStruct((1, length, 1, 8), "float32"))
      self.assertEqual((x.shape[1], kernels._whole_blocks(jnp.zeros((1, length, 1, 1)))[1]), (padded, block))

  def test_entry_takes_the_kernel_of_the_mesh(self):
    query, key, value = draw(1, 16, 16, 2, 2, 8)
    mesh = types.SimpleNamespace(devices=np.asarray([TPU], object), size=1)
    with mock.patch.object(kernels, "MIN_KEYS", 16), mock.patch.object(kernels, "attend", return_value="kernel") as attend:
      self.assertEqual(attention(query, key, value, causal=True, mesh=mesh), "kernel")
      self.assertEqual(attend.call_args.args[0], "pallas")
      # What a kernel does not compute stays with XLA.
      for arguments in (dict(mask=jnp.ones((1, 16, 16), bool)), dict(bias=jnp.zeros((1, 16)))):
        self.assertEqual(attention(query, key, value, mesh=mesh, **arguments).shape, query.shape)

  def test_lengths_are_a_mask(self):
    query, key, value = draw(2, 5, 7, 4, 2, 8)
    lengths = np.asarray([7, 3])
    mask = (np.arange(7) < lengths[:, None])[:, None]
    np.testing.assert_array_equal(
      attention(query, key, value, lengths=jnp.asarray(lengths)), attention(query, key, value, mask=jnp.asarray(mask))
    )

  @parameterized.parameters(
    ("causal", None, 0), ("causal", "all", 900), ("lengths", "all", 0), ("lengths", "rows", 900), ("all", "rows", 0)
  )
  def test_blocks_equal_the_whole(self, kind, mask, together):
    query, key, value = draw(3, 40, 40, 4, 2, 8)
    rng = np.random.default_rng(1)
    masks = {None: None, "rows": rng.random((3, 1, 40)) < 0.7, "all": rng.random((1, 40, 40)) < 0.7}
    lengths = (40, 7, 23) if kind == "lengths" else (40, 40, 40)
    arguments = dict(
      mask=None if mask is None else jnp.asarray(masks[mask]).at[..., 0].set(True),
      causal=kind == "causal",
      lengths=jnp.asarray(lengths) if kind == "lengths" else None,
      bias=None if mask == "rows" else jnp.asarray(rng.standard_normal((3, 40), np.float32)),
    )
    real = (np.arange(40) < np.asarray(lengths)[:, None])[..., None, None]

    def with_slopes():
      attend = lambda *args: jnp.where(real, attention(*args, **arguments), 0)
      loss = lambda *args: ((attend(*args) ** 2).sum(), attend(*args))
      (_, out), slopes = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(query, key, value)
      return out, *slopes

    expected = with_slopes()
    # Rows of 3,200 logits: blocks of all rows together, or parts of each row.
    cached = 4000 if together else 700
    with (
      mock.patch.dict(dispatch.MOST_LOGITS, cpu=together),
      mock.patch.multiple(cpu, CACHED_LOGITS=cached, _LEAST_QUERIES=1, _ROW_PARTS=4),
    ):
      for found, one in zip(with_slopes(), expected):
        np.testing.assert_allclose(found, one, rtol=2e-6, atol=1e-5)

  def test_long_rows_leave_out_what_does_not_count(self):
    query, key, value = draw(2, 64, 64, 2, 2, 8)
    lengths = jnp.asarray([64, 9])
    with mock.patch.dict(dispatch.MOST_LOGITS, cpu=0), mock.patch.multiple(cpu, CACHED_LOGITS=64 * 8, _LEAST_QUERIES=1):
      out = attention(query, key, value, lengths=lengths)
      # Keys beyond the part that a row ends in are not even read.
      poisoned = attention(query, key.at[1, 16:].set(jnp.nan), value.at[1, 16:].set(jnp.nan), lengths=lengths)
      early = attention(query, key.at[:, 16:].set(jnp.nan), value.at[:, 16:].set(jnp.nan), causal=True)
    np.testing.assert_array_equal(out[1, 16:], 0)
    np.testing.assert_array_equal(poisoned, out)
    self.assertTrue(np.isfinite(np.asarray(early)[:, :16]).all())
    self.assertTrue(np.isnan(np.asarray(early)[:, 16:]).all())

  def test_split_over_devices(self):
    processes.run("tests.reference.kernel_checks", xla_flags="--xla_force_host_platform_device_count=8")

  def test_tower_memory_is_linear_in_patches(self):
    config = vision.VisionConfig(
      depth=2,
      hidden_size=16,
      intermediate_size=32,
      num_heads=1,
      out_hidden_size=16,
      fullatt_block_indexes=(1,),
      in_channels=1,
      temporal_patch_size=1,
      patch_size=2,
      window_size=16,
    )
    tower = vision.VisionTower(config)
    temporaries, params = [], None
    for side in (64, 256):
      inputs, _ = vision.plan(np.zeros((side * side, 4), np.float32), np.asarray([[1, side, side]]), config)
      params = params or jax.eval_shape(tower.init, jax.random.key(0), inputs)
      compiled = jax.jit(tower.apply).lower(params, inputs).compile()
      temporaries.append(compiled.memory_analysis().temp_size_in_bytes)
    # Sixteen times the patches; a logits matrix would be 256 times as large, 17 GB at 65,536 patches.
    self.assertLess(temporaries[1], 17.6 * temporaries[0])
    self.assertLess(temporaries[1], 200e6)


if __name__ == "__main__":
  absltest.main()
