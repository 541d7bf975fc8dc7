"""Whether a model fits a TPU slice, and how long its programs take at least, with no TPU and no weights at hand.

  python -m experiments.compile_tpu --model_config=qwen2.5-vl-7b --topology=v5e:2x4 --mesh=fsdp:8 --batch=8

Compiles vision, prefill at every keep ratio and decoding for the slice's chips, from shapes alone, and reads the compiled
programs. Needs the packages of requirements-tpu.txt. Prints Markdown tables; writes compile_tpu.json.
"""

from __future__ import annotations

from concurrent import futures
import dataclasses
import functools
import json
import math
import os
import time

from absl import flags
import jax
import numpy as np
import tqdm

from experiments import command
from experiments import compile_report
from experiments import flops
from experiments import programs
from experiments import slices
from models import checkpoint
from models import generation
from models import registry
from models import sharding

_MODEL_CONFIG = flags.DEFINE_enum("model_config", "qwen2.5-vl-7b", sorted(registry.PUBLISHED), "A published size.")
_TOPOLOGY = flags.DEFINE_string("topology", "v5e:2x4", "Chips of a slice, like v5e:2x4, v6e:4x4 or v5p:2x2x1.")
_BATCH = flags.DEFINE_integer("batch", 8, "Prompts, each with a picture.", lower_bound=1)
_VISUAL_TOKENS = flags.DEFINE_integer("visual_tokens", None, "Of each picture; by default 4096 for Qwen2.5-VL, and what a "
                                      "tile has for LLaVA-1.5.", lower_bound=1)
_TEXT_TOKENS = flags.DEFINE_integer("text_tokens", 64, "Of each prompt.", lower_bound=4)
_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "Room for the answer.", lower_bound=1)
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [1.0, 0.4, 0.2, 0.1], "Shares of the visual tokens to keep.")
_DTYPE = flags.DEFINE_enum("dtype", "bfloat16", ["float32", "bfloat16"], "Of weights, activations and cache.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/compile_tpu", "Where compile_tpu.json goes.")


class Compiler:
  """Compiles a model's programs for a slice."""

  def __init__(self, model, chip: programs.Chip, dtype: str, bar: tqdm.tqdm):
    self.model, self.chip, self.bar = model, chip, bar
    shapes = checkpoint.abstract_params(model)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), shapes)
    self.params = programs.on_mesh(shapes, sharding.param_specs(shapes, model.config, model.mesh))
    self.weights = programs.shard_bytes(self.params)

  def rows_split(self, tree):
    """Shapes of arrays, dimension 0 split over the batch axes, as apps place their inputs."""
    place = lambda x: sharding.sharding(self.model.mesh, np.shape(x), sharding.BATCH)
    return programs.on_mesh(tree, jax.tree.map(place, tree))

  def compile(self, name: str, function, *args, work: float = 0.0, causal: bool = False, cache=lambda out: None, about=None,
              **static):
    """Compiles `function(params, *args)`.

    Args:
      name: of the program.
      function: jitted.
      *args: abstract.
      work: FLOPs of the model.
      causal: as in `programs.predict`.
      cache: the key/value cache among the function's abstract results or arguments.
      about: more fields of the row.
      **static: the function's static arguments.

    Returns:
      What is known of the program, for JSON, and the function's abstract results with where they lie; None if it does
      not fit.
    """
    began = time.perf_counter()
    row = {"program": name, **(about or {}), "weights_bytes": self.weights, "model_flops": work}
    held = self.weights + programs.shard_bytes(args)
    try:
      lowered = function.lower(self.params, *args, model=self.model, **static)
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      needed = programs.memory_needed(error, held)
      if needed is None:
        raise
      row.update(fits=False, needed_bytes=needed, compile_seconds=time.perf_counter() - began)
      self.bar.update()
      return row, None
    cost = programs.read(compiled, time.perf_counter() - began)
    seconds = programs.predict(cost, self.chip, causal, work / self.model.mesh.size)
    out = programs.on_mesh(lowered.out_info, compiled.output_shardings)
    cached = cache(out)
    needed = held + cost.outputs + cost.temporaries
    row.update(
        dataclasses.asdict(cost), fits=needed <= self.chip.memory, needed_bytes=needed,
        cache_bytes=0 if cached is None else programs.shard_bytes((cached.keys, cached.values)),
        seconds=dataclasses.asdict(seconds), predicted_seconds=seconds.total)
    self.bar.update()
    return row, out


def compile_all(model, chip: programs.Chip, plan, ratios, dtype: str, max_new_tokens: int) -> list[dict]:
  """What is known of all programs, compiled side by side; decoding's is of one step."""
  prompt, vision, vision_work = plan
  end_ids, sampling = generation.check_decoding(model, prompt, max_new_tokens)
  visual = int(prompt.visual_counts.max())

  def encode():
    return [compiler.compile("vision", generation.encode, compiler.rows_split(vision), work=vision_work)[0]]

  def answer(ratio):
    """Prefill at a keep ratio, and decoding after it."""
    pruning = generation.plan_pruning(model, prompt, keep_ratio=ratio)
    kept = visual if pruning is None else int(pruning.counts.max())
    tokens = kept + int(prompt.text_counts.max())
    work = flops.language_prefill(model.config.text, tokens)
    work += 0 if pruning is None else flops.scoring(model.config.text, visual)
    work *= len(prompt.text_tokens)
    about, ends = {"keep_ratio": ratio, "tokens": tokens}, compiler.rows_split(end_ids)
    prefill, out = compiler.compile(
        "prefill", generation.prefill, compiler.rows_split(prompt), features, compiler.rows_split(pruning), sampling, ends,
        work=work, causal=True, cache=lambda out: out[0].cache, about=about, max_new_tokens=max_new_tokens)
    if out is None:
      bar.update()
      return [prefill]
    decode, _ = compiler.compile("decode", generation.decode, out[0], compiler.rows_split(prompt.next_position), sampling,
                                 ends, cache=lambda out: out.cache, about=about)
    return [prefill, decode]

  with tqdm.tqdm(total=1 + 2 * len(ratios), unit="program") as bar, futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    compiler = Compiler(model, chip, dtype, bar)
    features = jax.eval_shape(functools.partial(generation.encode, model=model), compiler.params, vision)
    features = programs.on_mesh(features, sharding.sharding(model.mesh, features.shape, None, sharding.BATCH))
    jobs = [threads.submit(encode), *(threads.submit(answer, ratio) for ratio in ratios)]
    return [row for job in jobs for row in job.result()]


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  ratios = _KEEP_RATIOS.value
  if any(not 0 < ratio <= 1 for ratio in ratios):
    raise ValueError(f"keep_ratio: got {ratios}, each must be in (0, 1]")
  chip, devices = slices.slice_devices(_TOPOLOGY.value)
  jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are part of what is told
  model = registry.published(_MODEL_CONFIG.value, command.mesh(devices) or sharding.make_mesh("data:1", devices))
  began = time.perf_counter()
  size = slices.picture_size(model.config, _VISUAL_TOKENS.value)
  plan = slices.plan(model, size, _BATCH.value, _TEXT_TOKENS.value)
  prompt = plan[0]
  rows = compile_all(model, chip, plan, sorted(set(ratios), reverse=True), _DTYPE.value, _NEW_TOKENS.value)
  parameters = sum(math.prod(x.shape) for x in jax.tree.leaves(checkpoint.abstract_params(model)))
  report = {
      "model_config": _MODEL_CONFIG.value, "parameters": parameters, "topology": _TOPOLOGY.value,
      "mesh": {axis: int(size) for axis, size in model.mesh.shape.items()}, "batch": _BATCH.value,
      "visual_tokens": int(prompt.visual_counts.max()), "text_tokens": int(prompt.text_counts.max()),
      "max_new_tokens": _NEW_TOKENS.value, "dtype": _DTYPE.value, "chip": dataclasses.asdict(chip), "programs": rows,
      "wall_seconds": time.perf_counter() - began, "device": command.device(), "date": command.today(),
      "versions": command.versions()}
  (output / "compile_tpu.json").write_text(json.dumps(report, indent=1) + "\n")
  print(compile_report.summarize(report))
  print(f"\nwritten {output / 'compile_tpu.json'}")


if __name__ == "__main__":
  slices.no_tpu()
  command.run(main)
