"""The CPU workarounds compute what they replace, at sizes at which they are used."""

import functools
import pathlib
import re
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models import cpu

# The smallest kernel that is split.
ROWS, COLUMNS = 512, 512
# Largest difference, relative to the largest value: the parts are summed in another order.
TOLERANCES = {"float32": 1e-6, "bfloat16": 1e-2}
NUMBERS = (((1,), (0,)), ((), ()))


def draw(dtype, *shape, seed=0):
  return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32), dtype)


def way(function, *args) -> str:
  """How a product is computed: `parts` of it, `sums` of a few terms, or `whole`."""
  text = jax.jit(function).lower(*args).as_text()
  if "optimization_barrier" in text:
    return "sums"
  return "parts" if re.search(f"tensor<{cpu._PRODUCT_PARTS}x[1-9]x{COLUMNS}xf32>", text) else "whole"


def in_loop(function, x, table):
  """`function` of x and a table that a loop does not change, three times; compiled."""

  def loop(x, table):
    return jax.lax.fori_loop(0, 3, lambda _, x: function(x, table).astype(x.dtype), x)

  return jax.jit(loop).lower(x, table).compile()


class DotGeneralTest(parameterized.TestCase):
  def assert_close(self, found, expected, dtype):
    self.assertEqual((found.shape, found.dtype), (expected.shape, expected.dtype))
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
    np.testing.assert_allclose(found, expected, atol=TOLERANCES[dtype] * np.abs(expected).max(), rtol=0)

  @parameterized.product(dtype=["float32", "bfloat16"], rows=[(1,), (1, 1)], result=[None, "float32"])
  def test_split_product(self, dtype, rows, result):
    numbers = (((len(rows),), (0,)), ((), ()))
    inputs, kernel = draw(dtype, *rows, ROWS), draw(dtype, ROWS, COLUMNS, seed=1)
    multiply = functools.partial(cpu.dot_general, dimension_numbers=numbers, preferred_element_type=result)
    self.assertEqual(kernel.size, cpu.LEAST_SIZE)
    self.assertEqual(way(multiply, inputs, kernel), "parts" if dtype == "float32" else "sums")
    self.assert_close(
      jax.jit(multiply)(inputs, kernel), jax.lax.dot_general(inputs, kernel, numbers, preferred_element_type=result), dtype
    )

  @parameterized.parameters((1, "sums"), (2, "sums"), (3, "parts"), (cpu._FEW_ROWS, "parts"), (cpu._FEW_ROWS + 1, "whole"))
  def test_a_few_bfloat16_rows(self, rows, expected):
    inputs, kernel = draw("bfloat16", rows, ROWS), draw("bfloat16", ROWS, COLUMNS, seed=1)
    multiply = functools.partial(cpu.dot_general, dimension_numbers=NUMBERS)
    self.assertEqual(way(multiply, inputs, kernel), expected)
    exact = np.asarray(inputs, np.float64) @ np.asarray(kernel, np.float64)
    # The sum is rounded once, at the end: to half of bfloat16's last place.
    np.testing.assert_allclose(np.asarray(jax.jit(multiply)(inputs, kernel), np.float64), exact, rtol=2**-8, atol=1e-4)

  @parameterized.parameters(
    (1, (ROWS, COLUMNS), 0, "sums"),
    (2, (ROWS, COLUMNS), 0, "sums"),
    (1, (ROWS + 8, COLUMNS), 0, "whole"),
    (1, (COLUMNS, ROWS), 1, "whole"),
  )
  def test_one_or_two_bfloat16_rows_are_summed_in_float32(self, rows, shape, axis, expected):
    """Also where the sums of more terms are added, where the terms do not divide the rows, and in a transposed kernel."""
    inputs, kernel = draw("bfloat16", rows, shape[axis]), draw("bfloat16", *shape, seed=1)
    exact = np.asarray(inputs, np.float64) @ np.moveaxis(np.asarray(kernel, np.float64), axis, 0)
    for cached in (cpu._CACHED_SUMS, 0):
      with mock.patch.object(cpu, "_CACHED_SUMS", cached):
        numbers = (((1,), (axis,)), ((), ()))
        multiply = functools.partial(cpu.dot_general, dimension_numbers=numbers, preferred_element_type="float32")
        self.assertEqual(way(multiply, inputs, kernel), expected)
        found = jax.jit(lambda *args, multiply=multiply: multiply(*args))(inputs, kernel)
      np.testing.assert_allclose(np.asarray(found, np.float64), exact, rtol=0, atol=1e-6 * np.abs(exact).max())

  def test_the_kernel_of_a_loop_is_not_copied(self):
    inputs, kernel = draw("bfloat16", 1, ROWS), draw("bfloat16", ROWS, COLUMNS, seed=1)
    compiled = in_loop(functools.partial(cpu.dot_general, dimension_numbers=NUMBERS), inputs, kernel)
    self.assertLess(compiled.memory_analysis().temp_size_in_bytes, kernel.nbytes)

  @parameterized.parameters("float32", "bfloat16")
  def test_gradient(self, dtype):
    inputs, kernel = draw(dtype, 1, ROWS), draw(dtype, ROWS, COLUMNS, seed=1)
    weights = draw("float32", 1, COLUMNS, seed=2)
    loss = lambda multiply: lambda *args: (multiply(*args, NUMBERS).astype(jnp.float32) * weights).sum()
    found, expected = (
      jax.jit(jax.grad(loss(multiply), argnums=(0, 1)))(inputs, kernel)
      for multiply in (cpu.dot_general, jax.lax.dot_general)
    )
    for one, other in zip(found, expected):
      self.assert_close(one, other, dtype)

  @parameterized.parameters("float32", "bfloat16")
  def test_dense_layer(self, dtype):
    inputs = draw(dtype, 1, 1, ROWS)
    layers = [nn.Dense(COLUMNS, dot_general=multiply) for multiply in (cpu.dot_general, None)]
    params = {"params": {"kernel": draw(dtype, ROWS, COLUMNS, seed=1), "bias": draw(dtype, COLUMNS, seed=2)}}
    self.assertEqual(way(layers[0].apply, params, inputs), "parts" if dtype == "float32" else "sums")
    found, expected = (jax.jit(layer.apply)(params, inputs) for layer in layers)
    self.assert_close(found, expected, dtype)


class OperandTest(parameterized.TestCase):
  """Which dtype a large product is computed in, by what the CPU can do and what precision is asked for."""

  CASES = (
    # dtype, whether the CPU multiplies bfloat16, default matmul precision, dtype of the operands
    ("float32", True, None, "float32"),
    ("float32", False, None, "float32"),
    ("float32", True, "highest", "float32"),
    ("float32", True, "bfloat16", "bfloat16"),
    ("float32", False, "bfloat16", "float32"),
    ("bfloat16", True, None, "bfloat16"),
    ("bfloat16", False, None, "float32"),
  )

  @parameterized.parameters(
    ("flags\t\t: fpu avx512f avx512_bf16 amx_tile", True),
    ("flags\t\t: fpu amx_bf16", True),
    ("flags\t\t: fpu avx2 avx512_bf16_not", False),
    ("Features\t: fp asimd bf16", True),
    ("model name\t: bf16", False),
    (None, False),
  )
  def test_features(self, line, expected):
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    path = pathlib.Path(holder.name) / "cpuinfo"
    if line is not None:
      path.write_text(f"processor\t: 0\n{line}\nprocessor\t: 1\n")
    self.assertEqual(cpu.multiplies_bfloat16(str(path)), expected)

  @parameterized.parameters(*CASES)
  def test_products(self, dtype, able, precision, operands):
    inputs, kernel = draw(dtype, 16, 96), draw(dtype, 96, 24, seed=1)
    exact = np.asarray(inputs, np.float64) @ np.asarray(kernel, np.float64)
    with mock.patch.object(cpu, "multiplies_bfloat16", lambda: able), jax.default_matmul_precision(precision):
      self.assertEqual(cpu.operand_dtype(dtype).name, operands)
      dense = functools.partial(cpu.dot_general, dimension_numbers=NUMBERS)
      compiled = jax.jit(lambda a, b: (cpu.matmul(a, b), dense(a, b))).lower(inputs, kernel).compile()
    batched, found = compiled(inputs, kernel)
    products = [line for line in compiled.as_text().splitlines() if " dot(" in line]
    self.assertTrue(products)
    for line in products:
      self.assertIn("f32[16,24]", line.partition("dot(")[0])
    self.assertEqual((found.dtype, batched.dtype), (jnp.dtype(dtype), jnp.dtype("float32")))
    scale = np.abs(exact).max()
    largest = 1e-6 if operands == dtype or dtype == "bfloat16" else 1e-2
    self.assertLessEqual(np.abs(np.asarray(batched, np.float64) - exact).max() / scale, largest)
    self.assertLessEqual(
      np.abs(np.asarray(found, np.float64) - exact).max() / scale, max(largest, 2**-8 if dtype == "bfloat16" else 0)
    )
    if operands != dtype and dtype == "float32":
      self.assertGreater(np.abs(np.asarray(batched, np.float64) - exact).max() / scale, 1e-5)

  def test_explicit_precision_is_kept(self):
    inputs, kernel = draw("float32", 16, 96), draw("float32", 96, 24, seed=1)
    with mock.patch.object(cpu, "multiplies_bfloat16", lambda: True), jax.default_matmul_precision("bfloat16"):
      found = cpu.dot_general(inputs, kernel, NUMBERS, precision=jax.lax.Precision.HIGHEST)
    np.testing.assert_allclose(found, np.asarray(inputs, np.float64) @ np.asarray(kernel, np.float64), rtol=1e-4, atol=1e-5)


class LookUpTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.table, self.rows = draw("bfloat16", 64, 64), jnp.asarray([[3, 0, 3], [63, 1, 2]])

  def test_values_and_gradients(self):
    np.testing.assert_array_equal(cpu.look_up(self.table, self.rows), jnp.take(self.table, self.rows, axis=0))
    slope = jax.jit(jax.grad(lambda table: cpu.look_up(table, self.rows).astype(jnp.float32).sum()))(self.table)
    counts = np.bincount(np.ravel(self.rows), minlength=64)
    np.testing.assert_array_equal(np.asarray(slope, np.float32), np.repeat(counts[:, None], 64, axis=1))

  def test_the_table_of_a_loop_is_not_copied(self):
    compiled = in_loop(lambda rows, table: cpu.look_up(table, rows)[:, 0], jnp.asarray([5]), self.table)
    self.assertLess(compiled.memory_analysis().temp_size_in_bytes, self.table.nbytes)


class KeptTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.angles = draw("float32", 3, 7) * 100
    self.kept = functools.partial(cpu.kept, (jnp.cos, jnp.sin))

  def test_values(self):
    found, expected = jax.jit(self.kept)(self.angles), (jnp.cos(self.angles), jnp.sin(self.angles))
    for one, other in zip(found, expected, strict=True):
      np.testing.assert_array_equal(one, other)
    # Computed in a loop, whose results XLA does not fuse into what reads them.
    self.assertIn("stablehlo.while", jax.jit(self.kept).lower(self.angles).as_text())

  def test_gradients(self):
    weights = draw("float32", 2, 3, 7, seed=1)
    slope = lambda functions: jax.jit(jax.grad(lambda x: (weights * jnp.stack(functions(x))).sum()))(self.angles)
    np.testing.assert_allclose(slope(self.kept), slope(lambda x: (jnp.cos(x), jnp.sin(x))), rtol=1e-6, atol=1e-6)


if __name__ == "__main__":
  absltest.main()
