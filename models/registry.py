"""The ports, by the model_type of a checkpoint's config.json, and how to open checkpoints and published sizes."""

from __future__ import annotations

import pathlib
from typing import Any

import jax

from hawk_jax import checks
from models import hf_config
from models import internvl
from models import llava
from models import llava_onevision
from models import qwen2_5_vl
from models import qwen3_vl
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import orbax
from models.checkpoints import params as params_lib
from models.port import Port
from models.vision_language import VisionLanguageModel

PORTS: dict[str, Port] = {
  **internvl.PORTS,
  **llava.PORTS,
  **llava_onevision.PORTS,
  **qwen2_5_vl.PORTS,
  **qwen3_vl.PORTS,
}
# Model types that a reader may expect here, and why they are not.
REFUSED: dict[str, str] = {**internvl.REFUSED, **llava_onevision.REFUSED, **qwen3_vl.REFUSED}


def find(directory: pathlib.Path, config: dict[str, Any]) -> Port:
  """The port that a config.json asks for.

  Raises:
    ValueError: no, an unknown or a refused model_type.
  """
  model_type = config.get("model_type")
  if not isinstance(model_type, str) or model_type not in {**PORTS, **REFUSED}:
    raise ValueError(
      f"model: {directory}/config.json has model_type {checks.show(model_type)}, supported are {', '.join(PORTS)}"
    )
  if model_type in REFUSED:
    raise ValueError(f"model: {directory}/config.json has model_type {model_type!r}: {REFUSED[model_type]}")
  return PORTS[model_type]


def configure(directory: pathlib.Path, config: dict[str, Any] | None = None) -> tuple[Port, dict[str, Any], Any]:
  """A checkpoint's port, the content of its config.json, and the port's configuration; no weights are read.

  Args:
    directory: of the checkpoint.
    config: the content of its config.json, if it has been read.

  Raises:
    ValueError: an unknown model_type, or values that the port does not support or cannot read.
  """
  config = directory_lib.read_config(directory) if config is None else config
  port = find(directory, config)
  return port, config, hf_config.read(directory, config, port.from_hf)


def build(directory: pathlib.Path, config: dict[str, Any], mesh: jax.sharding.Mesh | None = None) -> VisionLanguageModel:
  """The model that a config.json describes, on a mesh or on one device; no weights are read.

  Raises:
    ValueError: as `configure`, or a mesh of another type.
  """
  if mesh is not None and not isinstance(mesh, (jax.sharding.Mesh, jax.sharding.AbstractMesh)):
    raise ValueError(f"mesh: got {checks.show(mesh)}, must be a mesh, such as models.sharding.make_mesh makes")
  port, _, configuration = configure(directory, config)
  return port.model(configuration, mesh)


def describe(path_or_hub_id: str, mesh=None) -> tuple[pathlib.Path, VisionLanguageModel]:
  """A checkpoint's directory and model; no weights are read.

  Args:
    path_or_hub_id: as for `load_model`.
    mesh: as for `load_model`.

  Raises:
    ValueError: no such checkpoint, or a config.json that is not supported.
  """
  directory = directory_lib.resolve(path_or_hub_id)
  return directory, build(directory, directory_lib.read_config(directory), mesh)


def load_params(directory: pathlib.Path, model: VisionLanguageModel, dtype: str = "float32") -> dict[str, Any]:
  """The parameters of a model of `describe`.

  Raises:
    ValueError: as `load_model`.
  """
  params_lib.check_dtype(dtype)
  return (orbax.load if orbax.found(directory) else hf.load)(directory, model, dtype)


def load_model(path_or_hub_id: str, mesh=None, dtype: str = "float32") -> tuple[VisionLanguageModel, dict[str, Any]]:
  """Loads a checkpoint in Hugging Face layout, or one that `experiments.convert` wrote.

  Args:
    path_or_hub_id: directory, or hub id (downloaded, or taken from the local hub cache).
    mesh: of `models.sharding.make_mesh`: what the parameters are spread over, each process reading its part; None: one
      device.
    dtype: `float32`, `bfloat16` or `float16`, what parameters are cast to and computed in.

  Returns:
    The model and its parameters, a nested dict.

  Raises:
    ValueError: lists what is missing, unknown, unreadable or of the wrong shape.
  """
  params_lib.check_dtype(dtype)
  directory, model = describe(path_or_hub_id, mesh)
  return model, load_params(directory, model, dtype)


def published_sizes() -> list[str]:
  """Names of all published sizes."""
  return sorted(name for port in PORTS.values() for name in port.published)


def published(name: str, mesh=None) -> VisionLanguageModel:
  """A model of a published size: shapes only, nothing is read or allocated.

  Args:
    name: of `published_sizes`.
    mesh: as for `load_model`.

  Raises:
    ValueError: an unknown name.
  """
  checks.choice("model_config", name, published_sizes())
  port = next(port for port in PORTS.values() if name in port.published)
  return port.model(port.published[name], mesh)
