"""Memory and seconds of a Qwen2.5-VL tower of small width at growing pictures, up to 65,536 patches.

  python -m experiments.native_resolution

Compiles the tower for this machine and runs it. Temporaries are what XLA sets aside beside arguments and results. Prints a
Markdown table; writes native_resolution.json.
"""

from __future__ import annotations

import json
import time

from absl import flags
import jax
import numpy as np
import tqdm

from experiments import command
from experiments import programs
from models.qwen2_5_vl import vision

_SIDES = flags.DEFINE_multi_integer("side", [64, 128, 256], "Patches along a picture's side, multiples of 2.", lower_bound=2)
_WIDTH = flags.DEFINE_integer("width", 32, "Hidden size of the tower, of one head; a multiple of 4.", lower_bound=4)
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/native_resolution", "Where native_resolution.json goes.")


def make_tower(width: int) -> tuple[vision.VisionTower, vision.VisionConfig]:
  """A block of windows and a block of full attention, with patches of 2 x 2 pixels."""
  config = vision.VisionConfig(
      depth=2, hidden_size=width, intermediate_size=2 * width, num_heads=1, out_hidden_size=width,
      fullatt_block_indexes=(1,), in_channels=1, temporal_patch_size=1, patch_size=2, window_size=16)
  return vision.VisionTower(config), config


def measure(side: int, width: int) -> dict:
  """Bytes and seconds of one picture."""
  tower, config = make_tower(width)
  pixels = np.random.default_rng(0).standard_normal((side * side, config.patch_dim), np.float32)
  inputs, _ = vision.plan(pixels, np.asarray([[1, side, side]]), config)
  params = jax.jit(tower.init)(jax.random.key(0), vision.plan(pixels[:4], np.asarray([[1, 2, 2]]), config)[0])
  compiled = jax.jit(tower.apply).lower(params, inputs).compile()
  began = time.perf_counter()
  features = jax.block_until_ready(compiled(params, inputs))
  return {"patches": side * side, "temporary_bytes": compiled.memory_analysis().temp_size_in_bytes,
          "seconds": time.perf_counter() - began, "finite": bool(np.isfinite(features).all())}


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  if any(side % 2 for side in _SIDES.value):
    raise ValueError(f"side: got {_SIDES.value}, each must be a multiple of 2")
  if _WIDTH.value % 4:
    raise ValueError(f"width: got {_WIDTH.value}, must be a multiple of 4")
  rows = [measure(side, _WIDTH.value) for side in tqdm.tqdm(_SIDES.value, unit="picture")]
  report = {"width": _WIDTH.value, "rows": rows, "device": command.device(), "date": command.today(),
            "versions": command.versions()}
  (output / "native_resolution.json").write_text(json.dumps(report, indent=1) + "\n")
  print(f"Tower of width {_WIDTH.value}; {report['device']}, {report['date']}; {report['versions']}.\n")
  print("\n".join(programs.table(
      ["patches", "temporaries, MB", "bytes a patch", "a logits matrix, MB", "seconds"],
      [[row["patches"], f"{row['temporary_bytes'] / 1e6:.1f}", f"{row['temporary_bytes'] / row['patches']:.0f}",
        f"{4 * row['patches'] ** 2 / 1e6:.0f}", f"{row['seconds']:.2f}"] for row in rows])))
  if not all(row["finite"] for row in rows):
    raise ValueError("side: the tower's features are not finite")


if __name__ == "__main__":
  command.run(main)
