"""Checkpoints in Hugging Face layout: safetensors to parameters, and back.

A parameter's path is its tensor's name, so one rule serves every port: `layers_3/mlp/up_proj/kernel` is
`layers.3.mlp.up_proj.weight`. Kernels are transposed, [in, out] here and [out, in] there. Parameters that belong to no
Flax layer keep their own name. A port adds the prefixes that its checkpoints have gone by.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import json
import math
import os
import pathlib
import re
from typing import Any

from flax import traverse_util
import huggingface_hub
import jax
import jax.numpy as jnp
import ml_dtypes  # registers bfloat16 with NumPy, which safetensors asks for by name
import numpy as np
import safetensors
import safetensors.numpy
import tqdm

from models import mesh_loading
from models import sharding
from models.mesh_loading import Tally

# Of safetensors files.
_STORED_DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
# What Flax layers call the tensors that PyTorch calls weight.
_WEIGHTS = ("kernel", "scale", "embedding")
# Last component of tensors that hold no parameter: older checkpoints store what models compute.
_COMPUTED = ("position_ids", "inv_freq")
_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")


@dataclasses.dataclass(frozen=True)
class Names:
  """How a port's parameters are called in checkpoints.

  Attributes:
    renames: (pattern, replacement) pairs that bring any tensor name ever used to the parameter's dotted path; the first
      pattern that matches is applied.
    prefixes: beginning of a dotted path to what stands for it in a saved checkpoint; one of them begins every path.
  """

  renames: tuple[tuple[str, str], ...]
  prefixes: Mapping[str, str]

  def canonical(self, tensor: str) -> str:
    for pattern, replacement in self.renames:
      if re.match(pattern, tensor):
        return re.sub(pattern, replacement, tensor, count=1)
    return tensor

  def saved(self, dotted: str) -> str:
    prefix = next(prefix for prefix in self.prefixes if dotted.startswith(prefix))
    return self.prefixes[prefix] + dotted.removeprefix(prefix)


def resolve(path_or_hub_id: str) -> pathlib.Path:
  """The local directory of a checkpoint, downloaded or from the local hub cache if it is a hub id.

  Raises:
    ValueError: neither a directory nor a hub id that can be had.
  """
  path = pathlib.Path(path_or_hub_id)
  if path.is_dir():
    return path
  if path.exists():
    raise ValueError(f"model: {path_or_hub_id} is a file, give the checkpoint's directory or a hub id")
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", path_or_hub_id):
    raise ValueError(f"model: there is no directory {path_or_hub_id!r}, and it is not a hub id (owner/name)")
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(path_or_hub_id, allow_patterns=list(_FILES)))
  except Exception as error:  # the hub client raises many kinds: no network, no such repository, gated, ...
    raise ValueError(f"model: there is no directory {path_or_hub_id!r}, and the hub has not given a model of that name "
                     f"({type(error).__name__}: {str(error).splitlines()[0]})") from error


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """A checkpoint's config.json.

  Raises:
    ValueError: missing or not a JSON object.
  """
  path = directory / "config.json"
  if not path.is_file():
    raise ValueError(f"model: {directory} has no config.json")
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"model: {path} is not JSON ({error})") from error
  if not isinstance(content, dict):
    raise ValueError(f"model: {path} must hold a JSON object")
  return content


def abstract_params(model) -> dict[str, Any]:
  """Shapes of a model's parameters, nothing allocated."""
  return jax.eval_shape(model.init, jax.random.key(0), model.example())["params"]


def init_params(model, seed: int = 0, dtype: str = "float32", scale: float = 0.02) -> dict[str, Any]:
  """Random parameters for benchmarks: kernels and embeddings normal, norms 1, biases 0.

  Args:
    model: a port.
    seed: of the random numbers.
    dtype: `float32`, `bfloat16` or `float16`.
    scale: standard deviation of kernels and embeddings.
  """
  flat = traverse_util.flatten_dict(abstract_params(model))
  keys = jax.random.split(jax.random.key(seed), len(flat))
  make = {"scale": lambda key, shape: jnp.ones(shape, dtype), "bias": lambda key, shape: jnp.zeros(shape, dtype)}
  normal = jax.jit(lambda key, shape: (scale * jax.random.normal(key, shape, jnp.float32)).astype(dtype), static_argnums=1)
  return traverse_util.unflatten_dict({
      path: make.get(path[-1], normal)(key, value.shape) for key, (path, value) in zip(keys, flat.items())})


def load_hf(directory: pathlib.Path, model, dtype: str = "float32", tally: Tally | None = None) -> dict[str, Any]:
  """Parameters from the safetensors files of a directory.

  Args:
    directory: with model.safetensors, or shards and their index.
    model: the port the config asks for; its `names` map tensors to parameters, its `mesh` says where they go.
    dtype: what the parameters are cast to; the compute dtype.
    tally: counts the bytes read.

  Raises:
    ValueError: an unknown dtype, no or unreadable files, pickled weights, or tensors that are missing, unexpected or
      wrongly shaped: one error lists them all.
  """
  wanted = traverse_util.flatten_dict(abstract_params(model))
  found = find_tensors(directory, model, wanted)
  tally = Tally() if tally is None else tally
  mesh = model.mesh
  targets = None if mesh is None else traverse_util.flatten_dict(
      sharding.param_specs(traverse_util.unflatten_dict(wanted), model.config, mesh))
  params = {}
  for path, value in progress(wanted.items(), "loading", "tensor"):
    if mesh is None:
      params[path] = jnp.asarray(read_param(path, value.shape, *found[path], dtype, tally))
    else:
      params[path] = mesh_loading.read(path, value.shape, *found[path], dtype, tally, mesh, targets[path])
  return traverse_util.unflatten_dict(params)


def progress(items, what: str, unit: str):
  """A bar for work that takes longer than a blink; of the first process only."""
  return tqdm.tqdm(items, desc=what, unit=unit, delay=2, disable=jax.process_index() > 0)


def check_dtype(dtype: str) -> None:
  """Refuses a dtype that parameters cannot have."""
  if dtype not in DTYPES:
    raise ValueError(f"dtype: got {dtype!r}, allowed are {', '.join(DTYPES)}")


def find_tensors(directory: pathlib.Path, model, wanted: Mapping) -> dict[tuple[str, ...], tuple[str, Any]]:
  """Each parameter's tensor and the open file that holds it.

  Args:
    directory: as in `load_hf`.
    model: a port.
    wanted: its abstract parameters by path.

  Raises:
    ValueError: as in `load_hf`.
  """
  sources = _open(directory)
  tensors = {}
  for tensor, source in sources.items():
    if tensor.rsplit(".", 1)[-1] not in _COMPUTED:
      tensors.setdefault(model.names.canonical(tensor), []).append((tensor, source))
  dotted = {path: _dotted(path) for path in wanted}

  problems = [f"twice: {' and '.join(name for name, _ in found)}" for found in tensors.values() if len(found) > 1]
  problems += [f"missing: {model.names.saved(name)}" for name in dotted.values() if name not in tensors]
  problems += [f"unexpected: {found[0][0]}" for name, found in tensors.items()
               if name not in dotted.values() and not model.leaves_out(name)]
  for path, value in wanted.items():
    for tensor, source in tensors.get(dotted[path], [])[:1]:
      shape = tuple(source.get_slice(tensor).get_shape())
      if not _fits(path, shape, value.shape):
        problems.append(f"wrong shape: {tensor} is {list(shape)}, the config asks for {_torch_shape(path, value.shape)}")
      if stored_dtype(tensor, source) is None:
        problems.append(f"wrong dtype: {tensor} is {source.get_slice(tensor).get_dtype()}, allowed are "
                        f"{', '.join(_STORED_DTYPES)}")
  if problems:
    raise ValueError(f"model: {directory} does not fit its config:\n  " + "\n  ".join(problems))

  return {path: tensors[dotted[path]][0] for path in wanted}


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
  return np.ascontiguousarray(mesh_loading.as_param(array, path[-1] == "kernel", shape), DTYPES[dtype])


def stored_dtype(tensor: str, source) -> str | None:
  """What a tensor is stored in, as `DTYPES` calls it; None if it is none of them."""
  return _STORED_DTYPES.get(source.get_slice(tensor).get_dtype())


def save_hf(directory: pathlib.Path, model, params: dict[str, Any], dtype: str = "float32") -> None:
  """Writes parameters as model.safetensors, atomically.

  Args:
    directory: exists, with its config.json.
    model: a port.
    params: its parameters.
    dtype: to store them in.
  """
  tensors = {}
  for path, value in traverse_util.flatten_dict(params).items():
    array = np.asarray(value)
    array = array.reshape(array.shape[0], -1).T if path[-1] == "kernel" else array
    shape = model.stored_shapes().get(_dotted(path), _torch_shape(path, value.shape))
    tensors[model.names.saved(_dotted(path))] = np.ascontiguousarray(array.reshape(shape), DTYPES[dtype])
  path = pathlib.Path(directory) / "model.safetensors"
  partial = path.with_suffix(".partial")
  safetensors.numpy.save_file(tensors, partial, metadata={"format": "pt"})
  os.replace(partial, path)


def _dotted(path: tuple[str, ...]) -> str:
  """('layers_3', 'mlp', 'up_proj', 'kernel') to 'layers.3.mlp.up_proj.weight'."""
  parts = [re.sub(r"_(\d+)$", r".\1", part) for part in path[:-1]]
  return ".".join(parts + ["weight" if path[-1] in _WEIGHTS else path[-1]])


def flat_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Shape of a parameter with its outputs, which may have several axes, on one: [in, out] of a kernel, [out] of a bias."""
  if name == "kernel":
    return shape[0], math.prod(shape[1:])
  return (math.prod(shape),) if name == "bias" else tuple(shape)


def _torch_shape(path, shape):
  flat = list(flat_shape(path[-1], shape))
  return flat[::-1] if path[-1] == "kernel" else flat


def _fits(path, stored, shape):
  """Whether a stored tensor fits a parameter; convolutions over whole patches are kernels too."""
  if path[-1] == "kernel" and len(stored) > 2:
    stored = (stored[0], int(np.prod(stored[1:])))
  return list(stored) == _torch_shape(path, shape)


def _open(directory: pathlib.Path) -> dict[str, Any]:
  """Every tensor's name and the open file that holds it."""
  index = directory / "model.safetensors.index.json"
  if index.is_file():
    try:
      names = sorted(set(json.loads(index.read_text())["weight_map"].values()))
    except (ValueError, KeyError, AttributeError) as error:
      raise ValueError(f"model: {index} is not a safetensors index ({error})") from error
    missing = [name for name in names if not (directory / name).is_file()]
    if missing:
      raise ValueError(f"model: {directory} lacks files its index names: {', '.join(missing)}")
    files = [directory / name for name in names]
  else:
    files = sorted(directory.glob("*.safetensors"))
  if not files:
    pickles = sorted(path.name for path in directory.iterdir() if path.suffix in _PICKLES)
    if pickles:
      raise ValueError(f"model: {directory} has pickled weights only ({', '.join(pickles)}), which can run code when "
                       "read; convert them to safetensors first")
    raise ValueError(f"model: {directory} has no .safetensors file")
  sources = {}
  for path in files:
    try:
      source = safetensors.safe_open(path, framework="numpy")
    except (OSError, safetensors.SafetensorError) as error:
      raise ValueError(f"model: {path} is not a whole safetensors file ({error})") from error
    for name in source.keys():
      if name in sources:
        raise ValueError(f"model: {directory} holds the tensor {name} in two files")
      sources[name] = source
  return sources
