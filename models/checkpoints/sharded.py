"""Tensors of a safetensors file to parameters on a mesh.

Every byte is read once, by one process, in whole rows as they are stored: each device gets an equal part of a tensor's
rows, and the devices then exchange rows for the slices that they are to hold. If each device read its slices directly, some
would be columns, and every process would touch nearly every page of the file.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np

from models import sharding


@dataclasses.dataclass
class Tally:
  """How many bytes of tensors this process has read."""

  bytes_read: int = 0


def as_param(array, transpose: bool, shape):
  """A stored tensor, NumPy's or a device's, in the parameter's layout."""
  return (array.reshape(array.shape[0], -1).T if transpose else array).reshape(shape)


def read(path, shape, tensor, source, dtype, tally, mesh, target) -> jax.Array:
  """One parameter, spread over a mesh; no process reads or holds more than its part of the tensor."""
  view = source.get_slice(tensor)
  stored = tuple(view.get_shape())
  kernel = path[-1] == "kernel"
  rows = _in_rows(mesh, stored, target.spec[::-1] if kernel else target.spec)
  blocks = {}

  def read_rows(index):
    bounds = (index[0].start, index[0].stop)
    if bounds not in blocks:
      blocks[bounds] = np.asarray(view[index])
      tally.bytes_read += blocks[bounds].nbytes
    return blocks[bounds]

  array = jax.make_array_from_callback(stored, rows, read_rows)
  return jax.block_until_ready(_exchange(kernel, shape, dtype, rows, target)(array))


def _in_rows(mesh, stored, wanted) -> jax.sharding.NamedSharding:
  """The split of a stored tensor's first dimension into the most parts.

  Args:
    mesh: the mesh.
    stored: shape of the tensor.
    wanted: mesh axes of each of its dimensions after the exchange; splitting in their order makes the exchange cheap.
  """
  wanted = [axis for axis in wanted if axis is not None]
  order = wanted + [axis for axis in mesh.axis_names if axis not in wanted]
  ways = [axes for count in range(len(order), -1, -1) for axes in itertools.combinations(order, count)]
  size = lambda axes: math.prod(mesh.shape[axis] for axis in axes)
  axes = max((axes for axes in ways if stored[0] % size(axes) == 0), key=size)
  return sharding.sharding(mesh, stored, axes)


@functools.cache
def _exchange(kernel, shape, dtype, rows, target):
  """A function from a stored tensor, split in rows, to the parameter."""
  kept = () if kernel and len(shape) > 2 else tuple(axis for axis in rows.spec[0] or () if axis in target.spec)
  without_copies = jax.sharding.NamedSharding(target.mesh, sharding.P(kept or None))

  def exchange(array):
    array = jax.lax.with_sharding_constraint(array, without_copies)
    return as_param(array, kernel, shape).astype(dtype)

  return jax.jit(exchange, out_shardings=target)
