"""What the project needs to know of a port; `models.registry.PORTS` lists them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any

from models.inputs.media import MediaProcessor
from models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class Port:
  """A port of one model family.

  Attributes:
    model: its class, made from a configuration and a mesh.
    from_hf: the content of a config.json to that configuration; raises ValueError for what the port does not compute.
    processor: a checkpoint's directory, config.json and tokenizer to its `MediaProcessor`.
    published: name of each published size to its configuration.
    prompt_family: which wording of benchmark questions the model gets: `plain`, that of each benchmark, `llava` or
      `qwen3`.
  """

  model: type[VisionLanguageModel]
  from_hf: Callable[[dict[str, Any]], Any]
  processor: Callable[..., MediaProcessor]
  published: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prompt_family: str = "plain"
