"""Checkpoints in Hugging Face layout: safetensors to parameters, and back."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
import os
import pathlib
from typing import Any

from flax import traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from hawk_jax import checks
from models import sharding
from models.checkpoints import directory as directory_lib
from models.checkpoints import names
from models.checkpoints import params as params_lib
from models.checkpoints import sharded
from models.checkpoints.sharded import Tally

# The dtypes of safetensors files, by their names there.
_STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# Last component of tensors that are not parameters: older checkpoints also store values that models compute themselves.
_COMPUTED = ("position_ids", "inv_freq")
_HEAD, _TABLE = "lm_head.weight", "language_model.embed_tokens.weight"
_COMPARED = 16  # rows of a head that should equal the embedding table


def load(directory: pathlib.Path, model, dtype: str = "float32", tally: Tally | None = None) -> dict[str, Any]:
  """Parameters from the safetensors files of a directory.

  Args:
    directory: with model.safetensors, or shards and their index.
    model: the port that the config asks for; its `names` map tensors to parameters, its `mesh` says where they go.
    dtype: what the parameters are cast to, which is also the compute dtype.
    tally: counts the bytes read.

  Raises:
    ValueError: an unknown dtype, no or unreadable files, pickled weights, or tensors that are missing, unexpected or
      wrongly shaped: one error lists them all.
  """
  wanted = traverse_util.flatten_dict(params_lib.abstract(model))
  found = find_tensors(directory, model, wanted)
  tally = Tally() if tally is None else tally
  mesh = model.mesh
  targets = (
    None if mesh is None else traverse_util.flatten_dict(sharding.param_specs(traverse_util.unflatten_dict(wanted), model))
  )
  params = {}
  for path, value in params_lib.progress(wanted.items(), "loading", "tensor"):
    if mesh is None:
      params[path] = jnp.asarray(read_param(path, value.shape, *found[path], dtype, tally))
    else:
      params[path] = sharded.read(path, value.shape, *found[path], dtype, tally, mesh, targets[path])
  return traverse_util.unflatten_dict(params)


def find_tensors(directory: pathlib.Path, model, wanted: Mapping) -> dict[tuple[str, ...], tuple[str, Any]]:
  """Each parameter's tensor and the open file that holds it.

  Args:
    directory: as in `load`.
    model: a port.
    wanted: its abstract parameters by path.

  Raises:
    ValueError: as in `load`.
  """
  sources = _open(directory)
  tensors = {}
  for tensor, source in sources.items():
    if tensor.rsplit(".", 1)[-1] not in _COMPUTED:
      tensors.setdefault(model.names.canonical(tensor), []).append((tensor, source))
  dotted = {path: names.dotted(path) for path in wanted}

  problems = [f"twice: {' and '.join(name for name, _ in found)}" for found in tensors.values() if len(found) > 1]
  problems += [f"missing: {model.names.saved(name)}" for name in dotted.values() if name not in tensors]
  problems += [
    f"unexpected: {found[0][0]}"
    for name, found in tensors.items()
    if name not in dotted.values() and not model.leaves_out(name)
  ]
  if model.leaves_out(_HEAD) and _differ(*(tensors.get(name) for name in (_HEAD, _TABLE))):
    problems.append(f"contradiction: {tensors[_HEAD][0][0]} is not the embedding table, the config says tie_word_embeddings")
  for path, value in wanted.items():
    for tensor, source in tensors.get(dotted[path], [])[:1]:
      shape = tuple(source.get_slice(tensor).get_shape())
      if not names.fits(path, shape, value.shape):
        problems.append(
          f"wrong shape: {tensor} is {list(shape)}, the config asks for {names.torch_shape(path, value.shape)}"
        )
      if stored_dtype(tensor, source) is None:
        problems.append(
          f"wrong dtype: {tensor} is {source.get_slice(tensor).get_dtype()}, allowed are {', '.join(_STORED_DTYPES)}"
        )
  if problems:
    raise ValueError(f"model: {directory} does not fit its config:\n  " + "\n  ".join(problems))
  return {path: tensors[dotted[path]][0] for path in wanted}


def _differ(head, table) -> bool:
  """Whether two matrices, as `find_tensors` holds them, differ in some evenly spaced rows; False where one is not stored."""
  if not head or not table:
    return False
  first, second = (source.get_slice(name) for name, source in (head[0], table[0]))
  if first.get_shape() != second.get_shape():
    return True
  count = first.get_shape()[0]
  rows = range(0, count, -(-count // _COMPARED))
  return any(not np.array_equal(first[row : row + 1], second[row : row + 1]) for row in rows)


def read_param(path, shape, tensor: str, source, dtype: str, tally: Tally) -> np.ndarray:
  """One parameter, whole.

  Args:
    path: of the parameter.
    shape: of it.
    tensor: its name in the file.
    source: the open file.
    dtype: to cast it to.
    tally: counts the bytes.
  """
  array = source.get_tensor(tensor)
  tally.bytes_read += array.nbytes
  return np.ascontiguousarray(sharded.as_param(array, path[-1] == "kernel", shape), params_lib.DTYPES[dtype])


def stored_dtype(tensor: str, source) -> str | None:
  """The dtype a tensor is stored in, by its name in `params.DTYPES`; None if it is none of them."""
  return _STORED_DTYPES.get(source.get_slice(tensor).get_dtype())


def tensors(model, params: dict[str, Any]) -> Iterator[tuple[str, Any]]:
  """Parameters as the tensors of a checkpoint file, one after the other: their names there, and arrays of the same kind.

  Args:
    model: a port.
    params: its parameters, in NumPy or on a device.
  """
  for path, value in traverse_util.flatten_dict(params).items():
    dotted = names.dotted(path)
    shape = model.stored_shapes().get(dotted, names.torch_shape(path, value.shape))
    rows = value.reshape(value.shape[0], -1).T if path[-1] == "kernel" else value
    yield model.names.saved(dotted), rows.reshape(shape)


def save(directory: pathlib.Path, model, params: dict[str, Any], dtype: str = "float32") -> None:
  """Writes parameters as model.safetensors, atomically.

  Args:
    directory: exists, with its config.json.
    model: a port.
    params: its parameters.
    dtype: to store them in.

  Raises:
    OSError: the file cannot be written.
  """
  stored = {
    name: np.ascontiguousarray(array, params_lib.DTYPES[dtype])
    for name, array in tensors(model, jax.tree.map(np.asarray, params))
  }
  path = pathlib.Path(directory) / "model.safetensors"
  partial = path.with_suffix(".partial")
  try:
    safetensors.numpy.save_file(stored, partial, metadata={"format": "pt"})
    os.replace(partial, path)
  except safetensors.SafetensorError as error:
    partial.unlink(missing_ok=True)
    raise OSError(f"cannot write {path} ({error})") from error


def _shards(index: pathlib.Path) -> set[str]:
  """The files that an index names, which are beside it."""
  weight_map = directory_lib.read_json(index).get("weight_map")
  if not isinstance(weight_map, dict):
    raise ValueError(f"model: {index}: weight_map: got {checks.show(weight_map)}, must be an object: tensor to file")
  for tensor, name in weight_map.items():
    if not isinstance(name, str) or name != os.path.basename(name) or not name.endswith(".safetensors"):
      raise ValueError(
        f"model: {index}: weight_map of {checks.show(tensor)}: got {checks.show(name)}, must be a .safetensors file in the "
        "same directory"
      )
  return set(weight_map.values())


def _open(directory: pathlib.Path) -> dict[str, Any]:
  """Every tensor's name and the open file that holds it."""
  index = directory / "model.safetensors.index.json"
  if index.is_file():
    shards = sorted(_shards(index))
    missing = [name for name in shards if not (directory / name).is_file()]
    if missing:
      raise ValueError(f"model: {directory} lacks files that its index names: {', '.join(missing)}")
    files = [directory / name for name in shards]
  else:
    files = sorted(directory.glob("*.safetensors"))
  if not files:
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if pickles:
      raise ValueError(
        f"model: {directory} has only pickled weights ({', '.join(pickles)}), which can run code when they are "
        "read; convert them to safetensors first"
      )
    raise ValueError(f"model: {directory} has no .safetensors file")
  sources = {}
  for path in files:
    try:
      source = safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
      raise ValueError(f"model: {path} is not a complete safetensors file ({error})") from error
    for name in source.keys():
      if name in sources:
        raise ValueError(f"model: {directory} holds the tensor {name} in two files")
      sources[name] = source
  return sources
