"""Converts a Hugging Face checkpoint to Orbax's format, which loads fast onto any mesh of devices.

  python -m experiments.convert --model=Qwen/Qwen2.5-VL-72B-Instruct --output_dir=qwen2.5-vl-72b

Holds one layer in memory at a time. Killed at any moment, the same command goes on after the last layer; until all are
there, the output directory does not exist. `--model` of every app and `models.load_model` take that directory.
"""

from __future__ import annotations

import pathlib

from absl import flags

from experiments import command
from experiments import conversion
from models import checkpoint

_MODEL = flags.DEFINE_string("model", None, "Checkpoint directory in Hugging Face layout, or hub id.", required=True)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", None, "The new checkpoint.", required=True)
_DTYPE = flags.DEFINE_enum("dtype", None, list(checkpoint.DTYPES), "Of the new parameters; by default each as it is stored.")


def main():
  output = pathlib.Path(_OUTPUT_DIR.value).expanduser().absolute()
  conversion.convert(checkpoint.resolve(_MODEL.value), output, _DTYPE.value)
  print(f"written {output}")


if __name__ == "__main__":
  command.run(main)
