"""What the project needs to know of a port; `models.registry.PORTS` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class Port:
  """A port of one model family.

  Attributes:
    model: its class, made from a configuration and a mesh.
    from_hf: the content of a config.json to that configuration; raises ValueError for what the port does not compute.
    images: a checkpoint's directory to its image processor; see `models.processor.Images`.
    published: name of each published size to its configuration.
    prompt_family: which wording of benchmark prompts the model gets; see `experiments.evaluation.benchmarks.prompts`.
  """

  model: type[VisionLanguageModel]
  from_hf: Callable[[dict[str, Any]], Any]
  images: Callable[..., Any]
  published: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prompt_family: str = "plain"
