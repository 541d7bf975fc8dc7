"""The ports, by the model_type of a checkpoint's config.json."""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from models import checkpoint
from models import orbax_store
from models.llava import config as llava_config
from models.llava import processor as llava_processor
from models.llava.model import Llava
from models.llava.model import LlavaNext
from models.qwen2_5_vl import config as qwen2_5_vl_config
from models.qwen2_5_vl import processor as qwen2_5_vl_processor
from models.qwen2_5_vl.model import Qwen2_5_VL


@dataclasses.dataclass(frozen=True)
class Port:
  """What loading needs to know of a port.

  Attributes:
    model: its class, made from a configuration.
    from_hf: a config.json's content to that configuration.
    images: a checkpoint's directory to a function of pictures, min_pixels and max_pixels that returns the arrays its
      `pack` takes and each picture's number of visual tokens.
  """

  model: Callable[[Any], Any]
  from_hf: Callable[[dict[str, Any]], Any]
  images: Callable[..., Any]


PORTS = {
    "llava": Port(Llava, llava_config.from_hf, llava_processor.Images),
    "llava_next": Port(LlavaNext, llava_config.from_hf, llava_processor.Images),
    "qwen2_5_vl": Port(Qwen2_5_VL, qwen2_5_vl_config.from_hf, qwen2_5_vl_processor.Images),
}


PUBLISHED = {
    **{name: (Llava, config) for name, config in llava_config.PUBLISHED.items()},
    **{name: (Qwen2_5_VL, config) for name, config in qwen2_5_vl_config.PUBLISHED.items()},
}


def published(name: str, mesh=None):
  """A model of a published size: shapes only, nothing is read or allocated.

  Args:
    name: a key of `PUBLISHED`.
    mesh: as in `load_model`.

  Raises:
    ValueError: an unknown name.
  """
  if name not in PUBLISHED:
    raise ValueError(f"model_config: got {name!r}, allowed are {', '.join(PUBLISHED)}")
  port, config = PUBLISHED[name]
  return port(config, mesh)


def find(directory, config: dict[str, Any]) -> Port:
  """The port a config.json asks for.

  Raises:
    ValueError: no or an unknown model_type.
  """
  model_type = config.get("model_type")
  if model_type not in PORTS:
    raise ValueError(f"model: {directory}/config.json has model_type {model_type!r}, supported are {', '.join(PORTS)}")
  return PORTS[model_type]


def build(directory, config: dict[str, Any], mesh=None):
  """The model a config.json describes, on a mesh or on one device.

  Raises:
    ValueError: an unknown model_type, or values the port does not support or cannot read.
  """
  port = find(directory, config)
  try:
    return port.model(port.from_hf(config), mesh)
  except Exception as error:  # transformers' config classes raise many kinds
    raise ValueError(f"model: {directory}/config.json: {error}") from error


def load_model(path_or_hub_id: str, mesh=None, dtype: str = "float32"):
  """Loads a checkpoint in Hugging Face layout, or one that `experiments.convert` wrote.

  Args:
    path_or_hub_id: directory, or hub id (downloaded, or from the local hub cache).
    mesh: of `models.sharding.make_mesh`: what the parameters are spread over, each process reading its part; None: one
      device.
    dtype: `float32`, `bfloat16` or `float16`, what parameters are cast to and computed in. Use float32 on CPU.

  Returns:
    The model and its parameters, a nested dict.

  Raises:
    ValueError: with what is missing, unknown, unreadable or of the wrong shape.
  """
  checkpoint.check_dtype(dtype)
  directory = checkpoint.resolve(path_or_hub_id)
  model = build(directory, checkpoint.read_config(directory), mesh)
  load = orbax_store.load if orbax_store.found(directory) else checkpoint.load_hf
  return model, load(directory, model, dtype)
