"""Reports whether a model fits a TPU slice, and lower bounds of its programs' times, without a TPU and without weights.

  python -m experiments.compile_tpu --model_config=qwen2.5-vl-7b --topology=v5e:2x4 --mesh=fsdp:8 --batch=8

Compiles vision, prefill at every keep ratio and decoding for the slice's chips, from shapes alone, and reads the compiled
programs. Needs the packages of requirements-tpu.txt. Prints Markdown tables; writes compile_tpu.json.
"""

from __future__ import annotations

import dataclasses
import json
import math
import time
from typing import Any

import jax

from experiments.running import command
from experiments.running import compilation_cache
from experiments.running import environment
from experiments.running import files
from experiments.running import method
from experiments.tpu import compiler
from experiments.tpu import report as report_lib
from experiments.tpu import slices
from hawk_jax.pruning import Pruning
from models import registry
from models import sharding
from models import stages
from models.checkpoints import params as params_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings):
  """Settings of the command."""

  model_config: str = command.option("qwen2.5-vl-7b", "A published size.", choices=registry.published_sizes)
  topology: str = command.option("v5e:2x4", "Chips of a slice, such as v5e:2x4, v6e:4x4 or v5p:2x2x1.")
  batch: int = command.option(8, "Number of prompts, each with one picture.", least=1)
  visual_tokens: int | None = command.option(
    None, "Number of visual tokens of each picture; by default what is typical for the model, 4096 for Qwen2.5-VL.", least=1
  )
  text_tokens: int = command.option(64, "Number of text tokens of each prompt.", least=4)
  max_new_tokens: int = command.option(64, "Most tokens of an answer.", least=1)
  keep_ratio: tuple[float, ...] = command.option(
    (1.0, 0.4, 0.2, 0.1), "Share of the visual tokens to keep, in (0, 1]; repeat the flag for several."
  )
  stages: tuple[str, ...] = command.option((), method.STAGES + " Repeat the flag for several.")
  dtype: str = command.option("bfloat16", "Dtype of weights, activations and cache.", choices=("float32", "bfloat16"))
  output_dir: str = command.option("out/compile_tpu", "Directory for compile_tpu.json.")

  def __post_init__(self):
    super().__post_init__()
    for ratio in self.keep_ratio:
      Pruning(keep_ratio=ratio)
    for text in self.stages:
      Pruning(stages=text)


def run(settings: Settings) -> dict[str, Any]:
  """Compiles, writes the file, and returns its content."""
  output = files.output_directory("output_dir", settings.output_dir, results=("compile_tpu.json",))
  chip, devices = slices.slice_devices(settings.topology)
  mesh = sharding.make_mesh(settings.mesh, devices)
  model = registry.published(settings.model_config, mesh)
  began = time.perf_counter()
  for text in settings.stages:
    print(f"stages: {stages.resolve(Pruning(stages=text), model).describe(*stages.depths(model))}")
  size = model.picture_size(settings.visual_tokens)
  batch = compiler.make_batch(model, size, settings.batch, settings.text_tokens, settings.stages)
  ratios = sorted(set(settings.keep_ratio), reverse=True)
  with compilation_cache.kept_in(None):
    rows = compiler.compile_all(model, chip, batch, ratios, settings.dtype, settings.max_new_tokens)
  report = {
    "model_config": settings.model_config,
    "parameters": sum(math.prod(x.shape) for x in jax.tree.leaves(params_lib.abstract(model))),
    "topology": settings.topology,
    "mesh": {axis: int(size) for axis, size in mesh.shape.items()},
    "batch": settings.batch,
    "visual_tokens": int(batch.prompt.visual_counts.max()),
    "text_tokens": int(batch.prompt.text_counts.max()),
    "max_new_tokens": settings.max_new_tokens,
    "dtype": settings.dtype,
    "chip": dataclasses.asdict(chip),
    "programs": rows,
    "wall_seconds": time.perf_counter() - began,
    "device": environment.device(),
    "date": environment.today(),
    "versions": environment.versions(),
  }
  files.write(output / "compile_tpu.json", json.dumps(report, indent=1) + "\n")
  print(report_lib.summarize(report))
  print(f"\nwritten {output / 'compile_tpu.json'}")
  return report


if __name__ == "__main__":
  slices.no_tpu()
  command.main(Settings, run)
