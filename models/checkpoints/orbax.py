"""Checkpoints in Orbax's format: saved one layer at a time, loaded onto any mesh.

A directory holds everything that a Hugging Face checkpoint has except the weights (config.json, tokenizer), `params/` with
one Orbax checkpoint per layer, and a manifest. The manifest is written last: without it the directory is no checkpoint.

Orbax is imported where it is used, because that takes half a second, and most checkpoints are not in its format.
"""

from __future__ import annotations

from collections.abc import Mapping
import json
import pathlib
import re
from typing import Any

from flax import traverse_util
import jax

from hawk_jax import checks
from models import foreign
from models import sharding
from models.checkpoints import directory as directory_lib
from models.checkpoints import params as params_lib

MANIFEST = "orbax.json"
# Arrays are stored in chunks of at most this many bytes, so that a process that needs a part of an array reads little more.
_CHUNK_BYTES = 1 << 22


def found(directory: pathlib.Path) -> bool:
  """Whether a directory is a finished checkpoint of this kind."""
  return (directory / MANIFEST).is_file()


def groups(paths) -> dict[str, list[tuple[str, ...]]]:
  """Parameter paths by what is saved together: a layer, or a module outside the layers."""
  out = {}
  for path in paths:
    numbered = next((place for place, part in enumerate(path) if re.search(r"_\d+$", part)), None)
    group = path[:-1] or path if numbered is None else path[: numbered + 1]
    out.setdefault(".".join(group), []).append(path)
  return out


def save_group(directory: pathlib.Path, name: str, params: Mapping[tuple[str, ...], Any]) -> None:
  """Saves some parameters, atomically.

  Args:
    directory: of the checkpoint; absolute.
    name: of `groups`.
    params: NumPy or JAX arrays by path, on one device or spread over a mesh.
  """
  import orbax.checkpoint as ocp

  tree = {"/".join(path): value for path, value in params.items()}
  save_args = {path: ocp.SaveArgs(chunk_byte_size=_CHUNK_BYTES) for path in tree}
  with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
    checkpointer.save(directory / "params" / name, args=ocp.args.PyTreeSave(tree, save_args=save_args), force=True)


def manifest(params: Mapping[tuple[str, ...], Any]) -> str:
  """The manifest's content: every parameter's shape and dtype.

  Args:
    params: arrays or abstract ones, by path.
  """
  content = {"/".join(path): [list(value.shape), str(value.dtype)] for path, value in params.items()}
  return json.dumps({"params": content}, indent=1) + "\n"


def _read_manifest(path: pathlib.Path) -> dict[str, tuple[list[int], str]]:
  """Shape and dtype of every parameter, of `manifest`."""
  stored = directory_lib.read_json(path).get("params")
  if not isinstance(stored, dict):
    raise ValueError(f"model: {path}: params: got {checks.show(stored)}, must be an object: parameter to shape and dtype")
  for name, entry in stored.items():
    if not (isinstance(entry, list) and len(entry) == 2 and isinstance(entry[0], list) and isinstance(entry[1], str)):
      raise ValueError(f"model: {path}: params of {checks.show(name)}: got {checks.show(entry)}, must be [shape, dtype]")
  return stored


def load(directory: pathlib.Path, model, dtype: str = "float32") -> dict[str, Any]:
  """Parameters of a port, on its mesh; each process reads the chunks its devices need.

  Args:
    directory: one for which `found` is true.
    model: the port that the config asks for.
    dtype: what the parameters are cast to.

  Raises:
    ValueError: parameters that are missing, unexpected or of another shape or kind: one error lists them all.
  """
  import orbax.checkpoint as ocp

  abstract = params_lib.abstract(model)
  wanted = {"/".join(path): value for path, value in traverse_util.flatten_dict(abstract).items()}
  try:
    stored = _read_manifest(directory / MANIFEST)
  except ValueError as error:
    raise ValueError(f"model: {directory / MANIFEST} is not a manifest of parameters ({error})") from error
  problems = [f"missing: {path}" for path in wanted if path not in stored]
  problems += [f"unexpected: {path}" for path in stored if path not in wanted]
  problems += [
    f"wrong shape: {path} is {stored[path][0]}, the config asks for {list(value.shape)}"
    for path, value in wanted.items()
    if path in stored and stored[path][0] != list(value.shape)
  ]
  problems += [f"wrong dtype: {path} is {kind}" for path, (_, kind) in stored.items() if kind not in params_lib.DTYPES]
  if problems:
    raise ValueError(f"model: {directory} does not fit its config:\n  " + "\n  ".join(problems))

  if model.mesh is None:
    one = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    targets = jax.tree.map(lambda _: one, abstract)
  else:
    targets = sharding.param_specs(abstract, model)
  targets = traverse_util.flatten_dict(targets)
  params = {}
  for name, paths in params_lib.progress(groups(targets).items(), "loading", "layer"):
    arguments = {
      "/".join(path): ocp.ArrayRestoreArgs(dtype=params_lib.DTYPES[dtype], sharding=targets[path]) for path in paths
    }
    source = directory.absolute() / "params" / name
    restore = ocp.args.PyTreeRestore(item={path: wanted[path] for path in arguments}, restore_args=arguments)
    try:
      with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        tree = checkpointer.restore(source, args=restore)
    except foreign.ERRORS as error:
      raise ValueError(f"model: {source} cannot be read, it may be incomplete ({foreign.reason(error)})") from error
    params.update({path: tree["/".join(path)] for path in paths})
  return traverse_util.unflatten_dict(params)
