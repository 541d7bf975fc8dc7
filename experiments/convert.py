"""Converts a Hugging Face checkpoint to Orbax's format, which loads fast onto any mesh of devices.

  python -m experiments.convert --model=Qwen/Qwen2.5-VL-72B-Instruct --output_dir=qwen2.5-vl-72b

Holds one layer in memory at a time. Interrupted at any moment, the same command resumes after the last complete layer; the
output directory exists only once all layers are in it. `--model` of every command and `models.load_model` take that
directory.
"""

from __future__ import annotations

import dataclasses
import pathlib

from experiments.running import command
from experiments.running import conversion
from experiments.running import files
from experiments.running import processes
from experiments.running import remote
from models.checkpoints import directory
from models.checkpoints import params


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  model: str = command.option("", "Checkpoint directory in Hugging Face layout, or hub id.")
  output_dir: str = command.option("", "The new checkpoint.")
  dtype: str | None = command.option(
    None, "Dtype of the new parameters; by default each keeps the dtype it is stored in.", choices=params.DTYPES
  )

  def __post_init__(self):
    super().__post_init__()
    for name in ("model", "output_dir"):
      if not getattr(self, name):
        raise ValueError(f"{name}: must be given")
    remote.check_local("output_dir", self.output_dir)


def run(settings: Settings) -> pathlib.Path:
  """Converts, and returns the new directory."""
  processes.check_alone("the conversion")
  output = files.absolute(settings.output_dir)
  new = conversion.convert(directory.resolve(settings.model), output, settings.dtype)
  print(f"written to {output}" if new else f"{output} is complete already")
  return output


if __name__ == "__main__":
  command.main(Settings, run)
