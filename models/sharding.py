"""Where parameters and activations lie on a mesh of devices; the one table for all ports.

Mesh axes: `data` splits the batch and copies the weights; `fsdp` splits the batch and the weights, which gather a layer at a
time; `tensor` splits heads, MLP width and vocabulary, and only activations move.

A mesh of None is no mesh: nothing here then changes the program.
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
# The default mesh has no more on `tensor`: most models have at least this many key/value heads.
_DEFAULT_TENSOR = 4

P = PartitionSpec
# First pattern that matches a parameter's whole path. `heads`, `kv_heads` and `vision_heads` are `tensor` if that axis
# divides their number, else nothing: a head is never split.
RULES = (
    # Decoder.
    (r"language_model/embed_tokens/embedding", P("tensor", "fsdp")),
    (r"lm_head/kernel", P("fsdp", "tensor")),
    (r"language_model/.*/q_proj/kernel", P("fsdp", "heads")),
    (r"language_model/.*/q_proj/bias", P("heads")),
    (r"language_model/.*/[kv]_proj/kernel", P("fsdp", "kv_heads")),
    (r"language_model/.*/[kv]_proj/bias", P("kv_heads")),
    (r"language_model/.*/o_proj/kernel", P("heads", "fsdp")),
    # Gated MLPs, of decoders and of Qwen2.5-VL's tower.
    (r".*/(gate|up)_proj/kernel", P("fsdp", "tensor")),
    (r".*/(gate|up)_proj/bias", P("tensor")),
    (r".*/down_proj/kernel", P("tensor", "fsdp")),
    # Qwen2.5-VL's tower.
    (r"visual/patch_embed/proj/kernel", P(None, "fsdp")),
    (r"visual/.*/attn/qkv/kernel", P("fsdp", None, "vision_heads")),
    (r"visual/.*/attn/qkv/bias", P(None, "vision_heads")),
    (r"visual/.*/attn/proj/kernel", P("vision_heads", "fsdp")),
    (r"visual/merger/mlp_0/kernel", P("fsdp", "tensor")),
    (r"visual/merger/mlp_0/bias", P("tensor")),
    (r"visual/merger/mlp_2/kernel", P("tensor", "fsdp")),
    # LLaVA's tower and projector.
    (r"vision_tower/embeddings/patch_embedding/kernel", P(None, "fsdp")),
    (r"vision_tower/embeddings/position_embedding/embedding", P(None, "fsdp")),
    (r"vision_tower/.*/[qkv]_proj/kernel", P("fsdp", "vision_heads")),
    (r"vision_tower/.*/[qkv]_proj/bias", P("vision_heads")),
    (r"vision_tower/.*/out_proj/kernel", P("vision_heads", "fsdp")),
    (r"vision_tower/.*/fc1/kernel", P("fsdp", "tensor")),
    (r"vision_tower/.*/fc1/bias", P("tensor")),
    (r"vision_tower/.*/fc2/kernel", P("tensor", "fsdp")),
    (r"multi_modal_projector/linear_1/kernel", P("fsdp", "tensor")),
    (r"multi_modal_projector/linear_1/bias", P("tensor")),
    (r"multi_modal_projector/linear_2/kernel", P("tensor", "fsdp")),
    # Vectors as long as the hidden state.
    (r".*/(scale|bias)|.*/class_embedding|image_newline", P()),
)


def make_mesh(spec: str | None = None, devices=None) -> Mesh:
  """A mesh of all devices.

  Args:
    spec: `data:2,fsdp:2,tensor:2`; an axis that is not named has 1. None: up to 4 on `tensor`, the rest on `fsdp`.
    devices: what to lay out; None: all devices of all processes.

  Raises:
    ValueError: a malformed spec, an unknown axis, or sizes that do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  if spec is None:
    tensor = math.gcd(len(devices), _DEFAULT_TENSOR)
    sizes = {"fsdp": len(devices) // tensor, "tensor": tensor}
  else:
    sizes = {}
    for part in spec.split(","):
      axis, _, size = part.strip().partition(":")
      if axis not in AXES or axis in sizes or not size.isdecimal() or int(size) < 1:
        raise ValueError(f"mesh: got {part!r} in {spec!r}, must be like data:2,fsdp:2,tensor:2 with each of "
                         f"{', '.join(AXES)} at most once")
      sizes[axis] = int(size)
    if math.prod(sizes.values()) != len(devices):
      raise ValueError(f"mesh: {spec!r} asks for {math.prod(sizes.values())} devices, there are {len(devices)}")
  return jax.make_mesh([sizes.get(axis, 1) for axis in AXES], AXES, devices=devices,
                       axis_types=(jax.sharding.AxisType.Auto,) * len(AXES))


def fit(mesh: Mesh, axes, size: int) -> tuple[str, ...]:
  """The longest beginning of `axes` whose devices divide a dimension; none: the dimension is not split.

  Args:
    mesh: the mesh.
    axes: name of a mesh axis, several, or None.
    size: of the dimension.
  """
  axes = () if axes is None else (axes,) if isinstance(axes, str) else tuple(axes)
  while axes and size % math.prod(mesh.shape[axis] for axis in axes):
    axes = axes[:-1]
  return axes


def sharding(mesh: Mesh, shape: tuple[int, ...], *axes) -> NamedSharding:
  """How an array lies on a mesh; axes that do not divide their dimension are left out."""
  return NamedSharding(mesh, P(*(fit(mesh, axis, size) or None for axis, size in zip(axes, shape))))


def constrain(x: jax.Array, mesh: Mesh | None, *axes) -> jax.Array:
  """Asks for a sharding of an activation.

  Args:
    x: any array.
    mesh: or None.
    *axes: for each dimension, None (not split), a mesh axis or several; dimensions after the last are not split.
  """
  return x if mesh is None else jax.lax.with_sharding_constraint(x, sharding(mesh, x.shape, *axes))


def residual(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[B, T, D] between layers.

  A prompt keeps its rows and the weights come to it, layer by layer; a decoding step's single token goes to the weights,
  its width split as they are, so that none is gathered.
  """
  return constrain(x, mesh, "data", None, "fsdp") if x.shape[1] == 1 else constrain(x, mesh, BATCH)


def in_turn(layer: nn.Module, x: jax.Array, mesh: Mesh | None) -> tuple[Callable, jax.Array]:
  """A layer and what enters it, tied so that `fsdp` gathers the layer's weights when x is there.

  Left to itself, the TPU compiler gathers the decoder's weights many layers ahead, and holds them all.
  """
  if mesh is None or mesh.shape["fsdp"] == 1 or layer.is_initializing():
    return layer, x
  x, variables = jax.lax.optimization_barrier((x, layer.variables))
  return functools.partial(layer.clone(parent=None).apply, variables), x


def features(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[F, D] between vision and language: any prompt may show any row, so every device looks up its own columns."""
  return constrain(x, mesh, None, BATCH)


def width(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[B, T, F] inside an MLP."""
  return constrain(x, mesh, "data" if x.shape[1] == 1 else BATCH, None, "tensor")


def heads(x: jax.Array, mesh: Mesh | None) -> jax.Array:
  """[B, T, N, d] inside attention."""
  return constrain(x, mesh, BATCH, None, "tensor")


def param_specs(params: dict[str, Any], config, mesh: Mesh) -> dict[str, Any]:
  """Where every parameter lies.

  Args:
    params: of a port, or their abstract shapes.
    config: the port's configuration.
    mesh: the mesh.

  Returns:
    A tree of NamedSharding like `params`.

  Raises:
    ValueError: a parameter that `RULES` do not mention.
  """
  vision_heads = getattr(config.vision, "num_heads", None) or config.vision.num_attention_heads
  counts = {"heads": config.text.num_attention_heads, "kv_heads": config.text.num_key_value_heads,
            "vision_heads": vision_heads}
  whole = {name: fit(mesh, "tensor", count) for name, count in counts.items()}

  def place(path, value):
    path = "/".join(path)
    spec = next((spec for pattern, spec in RULES if re.fullmatch(pattern, path)), None)
    if spec is None:
      raise ValueError(f"mesh: no rule says where {path} lies, add one to models.sharding.RULES")
    return sharding(mesh, value.shape, *(whole.get(axis, axis) for axis in spec))

  flat = traverse_util.flatten_dict(params)
  return traverse_util.unflatten_dict({path: place(path, value) for path, value in flat.items()})


def place(tree, mesh: Mesh | None):
  """NumPy arrays, alike in all processes, to the devices: dimension 0 split over the batch axes, each process its rows.

  Args:
    tree: of arrays.
    mesh: None: the tree itself.
  """
  if mesh is None:
    return tree

  def put(x):
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding(mesh, x.shape, BATCH), lambda index: x[index])

  return jax.tree.map(put, tree)


def fetch(tree, mesh: Mesh | None):
  """Arrays of a mesh, whole, as NumPy, in every process."""
  return jax.device_get(tree if mesh is None else _gather(mesh)(tree))


@functools.cache
def _gather(mesh):
  return jax.jit(lambda tree: tree, out_shardings=NamedSharding(mesh, P()))


def shards(mesh: Mesh | None) -> int:
  """Into how many parts the batch axes split rows."""
  return 1 if mesh is None else math.prod(mesh.shape[axis] for axis in BATCH)
