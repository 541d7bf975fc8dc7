"""Settings of commands that load a model and show it pictures: the size of pictures, and the precision."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.running import command
from experiments.running import environment
from models.checkpoints import params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """How pictures are scaled, and what dtype the parameters get."""

  min_pixels: int | None = command.option(None, "Smaller pictures are scaled up to this many pixels.")
  max_pixels: int | None = command.option(None, "Larger pictures are scaled down to this many pixels.")
  dtype: str | None = command.option(
    None, "Dtype of parameters and computation; by default float32 on CPU and bfloat16 elsewhere.", choices=params.DTYPES
  )

  @property
  def loading(self) -> dict[str, Any]:
    """These settings, for a command that this one runs."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}

  @property
  def pixels(self) -> dict[str, int]:
    """Arguments of a processor: the limits that are given; the others are the checkpoint's."""
    limits = {"min_pixels": self.min_pixels, "max_pixels": self.max_pixels}
    return {name: value for name, value in limits.items() if value is not None}

  @property
  def parameter_dtype(self) -> str:
    """`dtype`, or its default."""
    return self.dtype or environment.default_dtype()
