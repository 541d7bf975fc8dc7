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
    model: its class; `model(configuration, mesh)` makes a model.
    from_hf: function from the content of a config.json to the configuration; raises ValueError for what the port does not
      implement.
    processor: function from a checkpoint's directory, the content of its config.json and its tokenizer to a
      `MediaProcessor`.
    published: configuration of each published size, by name.
    prompt_family: wording of benchmark questions: `plain` for each benchmark's own, `internvl`, `llava` or `qwen3`.
  """

  model: type[VisionLanguageModel]
  from_hf: Callable[[dict[str, Any]], Any]
  processor: Callable[..., MediaProcessor]
  published: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  prompt_family: str = "plain"
