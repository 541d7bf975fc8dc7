"""The matrix products of decoding on CPU, where one row meets a whole weight matrix.

XLA's product of a row and a matrix leaves a quarter of a CPU's memory bandwidth unused; in parts along the contraction it
reaches what reading the weights takes (experiments/benchmark.py prints both). Everything else is `jax.lax.dot_general`.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp

_PARTS = 8
# Smaller matrices stay in a core's caches.
_LEAST_SIZE = 1 << 18


def dot_general(inputs: jax.Array, kernel: jax.Array, dimension_numbers, precision=None,
                preferred_element_type=None) -> jax.Array:
  """`jax.lax.dot_general` for `nn.Dense`.

  Args:
    inputs: [..., in].
    kernel: [in, out].
    dimension_numbers: the last axis of inputs against the first of kernel.
    precision: as in `jax.lax.dot_general`.
    preferred_element_type: as in `jax.lax.dot_general`.

  Returns:
    [..., out].
  """
  whole = functools.partial(jax.lax.dot_general, dimension_numbers=dimension_numbers, precision=precision,
                            preferred_element_type=preferred_element_type)
  if math.prod(inputs.shape[:-1]) != 1 or kernel.size < _LEAST_SIZE or kernel.shape[0] % _PARTS:
    return whole(inputs, kernel)

  def in_parts(inputs, kernel):
    rows, columns = kernel.shape
    parts = jnp.einsum("Pk,Pkn->Pn", inputs.reshape(_PARTS, rows // _PARTS),
                       kernel.reshape(_PARTS, rows // _PARTS, columns), precision=precision,
                       preferred_element_type=preferred_element_type)
    return parts.sum(axis=0).reshape(*inputs.shape[:-1], columns)

  return jax.lax.platform_dependent(inputs, kernel, cpu=in_parts, default=whole)
