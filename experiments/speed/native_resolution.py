"""Memory and seconds of a narrow Qwen2.5-VL tower for pictures of growing size, up to 65,536 patches.

  python -m experiments.speed.native_resolution

Compiles the tower for this machine and runs it. Temporaries are what XLA sets aside beside arguments and results. There
is no --mesh: the question is what fits one device. Prints a Markdown table; writes native_resolution.json.
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

import jax
import numpy as np
import tqdm

from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from models.qwen2_5_vl import vision


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  side: tuple[int, ...] = command.option(
    (64, 128, 256), "Patches along a picture's side, a multiple of 2; repeat the flag for several pictures.", least=2
  )
  width: int = command.option(32, "Hidden size of the tower, which has one head; a multiple of 4.", least=4)
  output_dir: str = command.option("out/native_resolution", "Directory for native_resolution.json.")

  def __post_init__(self):
    super().__post_init__()
    if any(side % 2 for side in self.side):
      raise ValueError(f"side: got {list(self.side)}, each must be a multiple of 2")
    if self.width % 4:
      raise ValueError(f"width: got {self.width}, must be a multiple of 4")


def make_tower(width: int) -> tuple[vision.VisionTower, vision.VisionConfig]:
  """A block of windows and a block of full attention, with patches of 2 x 2 pixels."""
  config = vision.VisionConfig(
    depth=2,
    hidden_size=width,
    intermediate_size=2 * width,
    num_heads=1,
    out_hidden_size=width,
    fullatt_block_indexes=(1,),
    in_channels=1,
    temporal_patch_size=1,
    patch_size=2,
    window_size=16,
  )
  return vision.VisionTower(config), config


def measure(side: int, width: int) -> dict[str, Any]:
  """Bytes and seconds of one picture.

  Args:
    side: patches along its side.
    width: of the tower.

  Raises:
    ValueError: features that are not finite.
  """
  tower, config = make_tower(width)
  pixels = np.random.default_rng(0).standard_normal((side * side, config.patch_dim), np.float32)
  inputs, _ = vision.plan(pixels, np.asarray([[1, side, side]]), config)
  params = jax.jit(tower.init)(jax.random.key(0), vision.plan(pixels[:4], np.asarray([[1, 2, 2]]), config)[0])
  compiled = jax.jit(tower.apply).lower(params, inputs).compile()
  began = time.perf_counter()
  features = jax.block_until_ready(compiled(params, inputs))
  seconds = time.perf_counter() - began
  if not np.isfinite(features).all():
    raise ValueError(f"side: the tower's features are not finite at {side}")
  return {"patches": side * side, "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes, "seconds": seconds}


def run(settings: Settings) -> dict[str, Any]:
  """Measures, writes the file, and returns its content."""
  output = files.output_directory("output_dir", settings.output_dir, results=("native_resolution.json",))
  rows = [measure(side, settings.width) for side in tqdm.tqdm(settings.side, unit="picture")]
  report = {
    "width": settings.width,
    "rows": rows,
    "device": environment.device(),
    "date": environment.today(),
    "versions": environment.versions(),
  }
  files.write(output / "native_resolution.json", json.dumps(report, indent=1) + "\n")
  print(f"Tower of width {settings.width}; {report['device']}, {report['date']}; {report['versions']}.\n")
  cells = [
    [
      row["patches"],
      f"{row['temporary_bytes'] / 1e6:.1f}",
      f"{row['temporary_bytes'] / row['patches']:.0f}",
      f"{4 * row['patches'] ** 2 / 1e6:.0f}",
      f"{row['seconds']:.2f}",
    ]
    for row in rows
  ]
  print(
    "\n".join(
      tables.table(["patches", "temporaries, MB", "bytes per patch", "a logits matrix, MB", "seconds"], cells, left=0)
    )
  )
  print(f"\nwritten {output / 'native_resolution.json'}")
  return report


if __name__ == "__main__":
  command.main(Settings, run)
