"""The CPU workarounds compute what they replace, at sizes at which they are used."""

import functools

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


def split(function, *args) -> bool:
  """Whether a function sums the parts of a product."""
  return f"tensor<{cpu._PRODUCT_PARTS}x{COLUMNS}x" in jax.jit(function).lower(*args).as_text()


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
    self.assertTrue(split(multiply, inputs, kernel))
    self.assert_close(
      jax.jit(multiply)(inputs, kernel), jax.lax.dot_general(inputs, kernel, numbers, preferred_element_type=result), dtype
    )

  @parameterized.parameters(((2, ROWS), (ROWS, COLUMNS)), ((1, ROWS - 8), (ROWS - 8, COLUMNS)), ((1, 516), (516, COLUMNS)))
  def test_other_products_are_not_split(self, inputs, kernel):
    """Two rows, a small kernel, and a contraction that the parts do not divide."""
    inputs, kernel = draw("float32", *inputs), draw("float32", *kernel, seed=1)
    multiply = functools.partial(cpu.dot_general, dimension_numbers=NUMBERS)
    self.assertFalse(split(multiply, inputs, kernel))
    np.testing.assert_array_equal(multiply(inputs, kernel), jax.lax.dot_general(inputs, kernel, NUMBERS))

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
    self.assertTrue(split(layers[0].apply, params, inputs))
    found, expected = (jax.jit(layer.apply)(params, inputs) for layer in layers)
    self.assert_close(found, expected, dtype)


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
