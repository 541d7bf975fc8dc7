"""Where parameters and activations are on a mesh of devices.

Mesh axes: `data` splits the batch and copies the weights; `fsdp` splits the batch and the weights, which are gathered one
layer at a time; `tensor` splits heads, MLP width and vocabulary, so that only activations move.

A mesh of None means a single device: nothing here then changes the program.
"""

from __future__ import annotations

from collections.abc import Callable
import functools
import math
import re
from typing import Any

from flax import linen as nn
from flax import traverse_util
import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

AXES = ("data", "fsdp", "tensor")
BATCH = ("data", "fsdp")
# The default mesh has at most this many devices on `tensor`: most models have at least as many key/value heads.
_DEFAULT_TENSOR = 4

P = PartitionSpec
# The shared decoder. The first pattern that matches a parameter's whole path applies, after those of the port's `axes`.
# `heads`, `kv_heads` and `vision_heads` mean `tensor` if its size divides their number, and otherwise no split: no
# single head is ever split.
_DECODER_AXES = (
  (r"language_model/embed_tokens/embedding", P("tensor", "fsdp")),
  (r"lm_head/kernel", P("fsdp", "tensor")),
  (r"language_model/.*/q_proj/kernel", P("fsdp", "heads")),
  (r"language_model/.*/q_proj/bias", P("heads")),
  (r"language_model/.*/[kv]_proj/kernel", P("fsdp", "kv_heads")),
  (r"language_model/.*/[kv]_proj/bias", P("kv_heads")),
  (r"language_model/.*/o_proj/kernel", P("heads", "fsdp")),
  # `models.decoder.MLP`, which towers may use too.
  (r".*/(gate|up)_proj/kernel", P("fsdp", "tensor")),
  (r".*/(gate|up)_proj/bias", P("tensor")),
  (r".*/down_proj/kernel", P("tensor", "fsdp")),
  # Vectors as long as the hidden state.
  (r".*/(scale|bias)", P()),
)


def make_mesh(spec: str | None = None, devices=None) -> Mesh:
  """A mesh of all devices.

  Args:
    spec: `data:2,fsdp:2,tensor:2`; an axis that is not named has size 1. None: up to 4 devices on
      `tensor`, the rest on `fsdp`.
    devices: the devices to arrange; None: all devices of all processes.

  Raises:
    ValueError: a malformed spec, an unknown axis, or sizes that do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  if spec is None:
    tensor = math.gcd(len(devices), _DEFAULT_TENSOR)
    sizes = {"fsdp": len(devices) // tensor, "tensor": tensor}
  else:
    sizes = {}
    if not isinstance(spec, str):
      raise ValueError(f"mesh: got {spec!r}, must be like data:2,fsdp:2,tensor:2")
    for part in spec.split(","):
      axis, _, size = part.strip().partition(":")
      if axis not in AXES or axis in sizes or not re.fullmatch("[1-9][0-9]{0,8}", size):
        raise ValueError(
          f"mesh: got {part!r} in {spec!r}, must be like data:2,fsdp:2,tensor:2 with each of {', '.join(AXES)} at most once"
        )
      sizes[axis] = int(size)
    if math.prod(sizes.values()) != len(devices):
      raise ValueError(f"mesh: {spec!r} asks for {math.prod(sizes.values())} devices, there are {len(devices)}")
  return jax.make_mesh(
    [sizes.get(axis, 1) for axis in AXES], AXES, devices=devices, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES)
  )


def fit(mesh: Mesh, axes, size: int) -> tuple[str, ...]:
  """The longest prefix of `axes` whose number of devices divides a dimension; empty: the dimension is not split.

  Args:
    mesh: the mesh.
    axes: name of a mesh axis, several names, or None.
    size: of the dimension.
  """
  axes = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
  while axes and size % math.prod(mesh.shape[axis] for axis in axes):
    axes = axes[:-1]
  return axes


def sharding(mesh: Mesh, shape: tuple[int, ...], *axes) -> NamedSharding:
  """How an array is split over a mesh; axes that do not divide their dimension are left out."""
  return NamedSharding(mesh, P(*(fit(mesh, axis, size) or None for axis, size in zip(axes, shape))))


def constrain(x: jax.Array, mesh: Mesh | None, *axes) -> jax.Array:
  """Asks for a sharding of an activation.

  Args:
    x: any array.
    mesh: the mesh; None returns x itself.
    *axes: for each dimension, None (not split), a mesh axis or several; dimensions after the last one given are not split.
  """
  return x if mesh is None else jax.lax.with_sharding_constraint(x, sharding(mesh, x.shape, *axes))


def residual(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[B, T, D] between layers.

  For prompts, each device keeps its rows, and the weights are gathered layer by layer. In a decoding step, no weight is
  gathered: the single token per row moves to the weights instead, with its width split as theirs is.
  """
  return constrain(x, mesh, "data", None, "fsdp") if x.shape[1] == 1 else constrain(x, mesh, BATCH)


def in_turn(layer: nn.Module, x: jax.Array, mesh: Mesh | None) -> tuple[Callable, jax.Array]:
  """A layer and its input, tied together so that `fsdp` gathers the layer's weights only once x is computed.

  Otherwise the TPU compiler gathers the decoder's weights many layers ahead, and holds them all.
  """
  if mesh is None or mesh.shape["fsdp"] == 1 or layer.is_initializing():
    return layer, x
  x, variables = jax.lax.optimization_barrier((x, layer.variables))
  return functools.partial(layer.clone(parent=None).apply, variables), x


def features(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[F, D] between vision and language. Any prompt may use any row, so each device holds some columns of all rows."""
  return constrain(x, mesh, None, BATCH)


def look_up(rows: jax.Array, index: jax.Array, mesh: Mesh | None) -> jax.Array:
  """rows[index], [B, T, D], of features [F, D] that are split as `features` splits them."""
  found = constrain(features(rows, mesh)[index], mesh, None, None, BATCH)
  return constrain(found, mesh, BATCH)


def width(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[B, T, F] inside an MLP."""
  return constrain(x, mesh, "data" if x.shape[1] == 1 else BATCH, None, "tensor")


def heads(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[B, T, N, d] inside attention."""
  return constrain(x, mesh, BATCH, None, "tensor")


def param_specs(params: dict[str, Any], model) -> dict[str, Any]:
  """How every parameter is split over a model's mesh.

  Args:
    params: of the model, or their abstract shapes.
    model: a port with a mesh.

  Returns:
    A tree of NamedSharding like `params`.

  Raises:
    ValueError: a parameter that no rule mentions.
  """
  mesh, text = model.mesh, model.config.text
  counts = {"heads": text.num_attention_heads, "kv_heads": text.num_key_value_heads, "vision_heads": model.vision_heads()}
  whole = {name: fit(mesh, "tensor", count) for name, count in counts.items()}
  rules = (*model.axes, *_DECODER_AXES)

  def place(path, value):
    path = "/".join(path)
    spec = next((spec for pattern, spec in rules if re.fullmatch(pattern, path)), None)
    if spec is None:
      raise ValueError(f"mesh: no rule says how {path} is split, add one to the port's axes")
    return sharding(mesh, value.shape, *(whole.get(axis, axis) for axis in spec))

  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict({path: place(path, value) for path, value in flat.items()})


def place(tree, mesh: Mesh | None):
  """Moves NumPy arrays, which are equal in all processes, to the devices, with dimension 0 split over the batch axes.

  Args:
    tree: of arrays.
    mesh: None returns the tree itself.
  """
  if mesh is None:
    return tree

  def put(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding(mesh, x.shape, BATCH), lambda index: x[index])

  return jax.tree.map(put, tree)


def fetch(tree, mesh: Mesh | None):
  """Arrays of a mesh as whole NumPy arrays, in every process."""
  return jax.device_get(tree if mesh is None else _gather(mesh)(tree))


@functools.cache
def _gather(mesh):
  return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def shards(mesh: Mesh | None) -> int:
  """Number of parts into which the batch axes split rows."""
  return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH)
