"""Seconds, bytes and shares of the machine's limits, pruned and unpruned, side by side with transformers' torch model.

  python -m experiments.benchmark --preset=cpu --baseline=transformers
  python -m experiments.benchmark --preset=gpu-7b --baseline=transformers        # one large GPU
  python -m experiments.benchmark --model=Qwen/Qwen2.5-VL-7B-Instruct --dtype=bfloat16

Everything is measured in one run and in turn, round after round, so a machine that slows down slows all alike; a figure is
the median of the rounds, with their least and most. Outputs are compared before anything is timed. Prints Markdown tables;
writes benchmark.json and benchmark.png.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import shutil
import tempfile
import time

from absl import flags
import jax
from jax.experimental.compilation_cache import compilation_cache
import jax.numpy as jnp
import numpy as np

from experiments import benchmark_report
from experiments import command
from experiments import flops
from experiments import prompts
from experiments import timing
from models import checkpoint
from models import generation
from models import load_model
from models import registry

_CONFIGS = pathlib.Path(__file__).parent / "configs"
_PRESETS = {"cpu": "float32", "gpu-7b": "bfloat16"}

_PRESET = flags.DEFINE_enum("preset", "cpu", list(_PRESETS), "A configuration with random weights, and its dtype.")
_MODEL = flags.DEFINE_string("model", None, "Checkpoint directory or hub id instead of a preset.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], "Instead of the preset's.")
_BASELINE = flags.DEFINE_enum("baseline", "none", ["none", "transformers"], "What to measure beside it; needs torch.")
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.4, 0.198, 0.1], "Shares of the visual tokens to keep.")
_SIDE = flags.DEFINE_integer("side", 784, "Height and width of the picture in pixels.", lower_bound=1)
_TEXT_TOKENS = flags.DEFINE_integer("text_tokens", 44, "Text tokens of the prompt.", lower_bound=4)
_STEPS = flags.DEFINE_integer("steps", 15, "Decoding steps after the first token.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each figure.", lower_bound=1)
_COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Tell how long a preset takes to compile, with no weights.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/benchmark", "Results, and random weights for the baseline.")


@dataclasses.dataclass(frozen=True)
class Case:
  """A prompt and how it is pruned.

  Attributes:
    name: in tables.
    inputs: packed.
    pruning: of `generation.plan_pruning`.
    visual: visual tokens of each row.
    tokens: tokens of each row that enter the decoder.
  """

  name: str
  inputs: object
  pruning: object
  visual: np.ndarray
  tokens: np.ndarray


def plan(model, arrays, keep_ratio: float, name: str) -> Case:
  inputs = model.pack(**arrays)
  pruning = generation.plan_pruning(model, inputs.prompt, keep_ratio=keep_ratio)
  visual = (inputs.prompt.visual_order >= 0).sum(-1)
  kept = visual if pruning is None else pruning.counts
  return Case(name, jax.device_put(inputs), pruning, visual, (inputs.prompt.text_order >= 0).sum(-1) + kept)


@functools.partial(jax.jit, static_argnames="model")
def prune(params, prompt, features, pruning, *, model):
  """Scoring, selection and compaction alone."""
  return model.apply({"params": params}, prompt, features, method="prune", **generation.pruning_arguments(pruning))


@functools.partial(jax.jit, static_argnames="model")
def language(params, sequence, *, model):
  """The decoder alone, and the head on the last token."""

  def call(module, sequence):
    out = module.run(sequence)
    return module.logits(out.last), out.keys_values

  return model.apply({"params": params}, sequence, method=call)


class Ours:
  """Our model's stages on one case."""

  def __init__(self, model, params, case: Case, steps: int):
    self.model, self.params, self.case, self.steps = model, params, case, steps
    self.end_ids, self.sampling = generation.check_decoding(model, case.inputs.prompt, steps + 1)
    self.compile_seconds, self.temporary_bytes = {}, {}
    self.vision = self._compile("vision", generation.encode, params, case.inputs.vision, model=model)
    self.features = self.vision()
    prompt = case.inputs.prompt
    self.prefill = self._compile("prefill", generation.prefill, params, prompt, self.features, case.pruning, self.sampling,
                                 self.end_ids, model=model, max_new_tokens=steps + 1)
    state, self.order = self.prefill()
    self.cache_bytes = state.cache.nbytes
    self.prune = self._compile("prune", prune, params, prompt, self.features, case.pruning, model=model)
    self.language = self._compile("language", language, params, self.prune(), model=model)
    self.loop = self._compile("decode", generation.decode, params, state, prompt.next_position, self.sampling, self.end_ids,
                              model=model)

  def _compile(self, name, function, *args, **static):
    began = time.perf_counter()
    compiled = function.lower(*args, **static).compile()
    self.compile_seconds[name] = time.perf_counter() - began
    memory = compiled.memory_analysis()
    self.temporary_bytes[name] = None if memory is None else memory.temp_size_in_bytes

    def call(*other):
      return jax.block_until_ready(compiled(*(other or args)))

    return call

  def first_token(self):
    """Vision and pruned prefill, as `generate` runs them: nothing waits between."""
    features = generation.encode(self.params, self.case.inputs.vision, model=self.model)
    return jax.block_until_ready(generation.prefill(
        self.params, self.case.inputs.prompt, features, self.case.pruning, self.sampling, self.end_ids, model=self.model,
        max_new_tokens=self.steps + 1))

  def decode(self, state):
    """The whole loop; uses the state up."""
    return self.loop(self.params, state, self.case.inputs.prompt.next_position, self.sampling, self.end_ids)

  def answer(self):
    """Vision, prefill and all tokens."""
    state, order = self.first_token()
    return generation.finish(self.decode(state), order)

  def kept(self, row: int) -> np.ndarray:
    """Prompt positions kept."""
    order = np.asarray(self.order)[row]
    return order[order >= 0]


def open_model(output: pathlib.Path, dtype: str):
  """The model, its parameters, and the directory of its checkpoint; random weights are written only for a baseline."""
  if _MODEL.value:
    return *load_model(_MODEL.value, dtype=dtype), checkpoint.resolve(_MODEL.value)
  config = _CONFIGS / _PRESET.value
  model = registry.build(config, checkpoint.read_config(config))
  params = checkpoint.init_params(model, dtype=dtype)
  directory = output / "weights"
  if _BASELINE.value != "none":
    directory.mkdir(exist_ok=True)
    shutil.copy(config / "config.json", directory)
    checkpoint.save_hf(directory, model, params, dtype=dtype)
  return model, params, directory


def check_equal(ours: list[Ours], baseline, tensors, steps: int, dtype: str) -> list[dict]:
  """Compares first logits and greedy tokens with the baseline's, which keeps the same tokens.

  Raises:
    ValueError: they differ by more than the dtype's rounding explains.
  """
  report = []
  for case in ours:
    logits, cache, following = baseline.prefill(tensors, case.kept(0))
    expected = logits.float().cpu().numpy()
    found = np.asarray(case.language()[0][0])
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    tokens = baseline.decode(logits, cache, following, steps)
    same = int(np.cumprod(np.asarray(case.answer().tokens)[0] == tokens).sum())
    report.append({"case": case.case.name, "largest_logit_error": error, "equal_tokens": same, "of": steps + 1})
    if error > {"float32": 1e-4}.get(dtype, 5e-2) or (dtype == "float32" and same != steps + 1):
      raise ValueError(f"baseline: outputs differ at {case.case.name}: {report[-1]}")
  return report


def compile_only(dtype: str) -> None:
  """Prints how long the preset takes to compile, cold and from a cache of its own; weights are never made."""
  config = _CONFIGS / _PRESET.value
  model = registry.build(config, checkpoint.read_config(config))
  params = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), checkpoint.abstract_params(model))
  case = plan(model, prompts.make_batch(model, [(_SIDE.value, _SIDE.value)], _TEXT_TOKENS.value, np.random.default_rng(0)),
              _KEEP_RATIOS.value[0], "")
  end_ids, sampling = generation.check_decoding(model, case.inputs.prompt, _STEPS.value + 1)
  features = jax.eval_shape(functools.partial(generation.encode, model=model), params, case.inputs.vision)
  arguments = (params, case.inputs.prompt, features, case.pruning, sampling, end_ids)
  programs = {
      "vision": lambda: generation.encode.lower(params, case.inputs.vision, model=model),
      "prefill and decoding": lambda: generation.prefill_and_decode.lower(
          *arguments, model=model, max_new_tokens=_STEPS.value + 1, return_logits=False),
  }
  jax.config.update("jax_enable_compilation_cache", True)
  with tempfile.TemporaryDirectory() as directory:
    jax.config.update("jax_compilation_cache_dir", directory)
    compilation_cache.reset_cache()
    for start in ("first start", "with a warm cache"):
      jax.clear_caches()
      for name, lower in programs.items():
        began = time.perf_counter()
        lowered = lower()
        traced = time.perf_counter()
        lowered.compile()
        print(f"{_PRESET.value}, {name}, {start}: traced in {traced - began:.1f} s, compiled in "
              f"{time.perf_counter() - traced:.1f} s")


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  jax.config.update("jax_enable_compilation_cache", False)  # compile seconds are part of what is measured
  preset = "model" if _MODEL.value else _PRESET.value
  dtype = _DTYPE.value or (_PRESETS[preset] if preset in _PRESETS else "float32")
  if _COMPILE_ONLY.value:
    return compile_only(dtype)
  model, params, directory = open_model(output, dtype)
  text, rng = model.config.text, np.random.default_rng(0)
  arrays = prompts.make_batch(model, [(_SIDE.value, _SIDE.value)], _TEXT_TOKENS.value, rng)
  ratios = [1.0] + [ratio for ratio in _KEEP_RATIOS.value if ratio < 1]
  ours = [Ours(model, params, plan(model, arrays, ratio, f"{ratio:g}"), _STEPS.value) for ratio in ratios]
  clock = timing.Clock()
  product, product_flops, stream, stream_bytes = timing.limits(dtype)
  clock.add("matmul", product)
  clock.add("stream", stream)
  clock.add("vision", ours[0].vision)
  for one in ours:
    name = one.case.name
    for stage in ("first_token", "prefill", "prune", "language", "answer"):
      clock.add(f"{stage} {name}", getattr(one, stage))
    clock.add(f"decode {name}", one.decode, lambda one=one: one.first_token()[:1])

  mixed = prompts.make_batch(model, [(side, _SIDE.value) for side in _sides(_SIDE.value)], _TEXT_TOKENS.value, rng)
  batch = Ours(model, params, plan(model, mixed, ratios[1], "batch"), _STEPS.value)
  clock.add("batch", batch.answer)
  batches = {1: ours[1]}
  for size in (4, 8):
    same = prompts.make_batch(model, [(_SIDE.value, _SIDE.value)] * size, _TEXT_TOKENS.value, rng)
    batches[size] = Ours(model, params, plan(model, same, ratios[1], f"x{size}"), _STEPS.value)
    clock.add(f"decode x{size}", batches[size].decode, lambda one=batches[size]: one.first_token()[:1])

  checks, baseline = [], None
  if _BASELINE.value != "none":
    from experiments.transformers_baseline import Baseline  # needs torch

    baseline = Baseline(directory, dtype)
    tensors = baseline.tensors(arrays)
    checks = check_equal(ours, baseline, tensors, _STEPS.value, dtype)
    _add_baseline(clock, baseline, tensors, ours, batch, mixed)
  clock.run(_ROUNDS.value)

  rate, bandwidth = product_flops / clock.median("matmul"), stream_bytes / clock.median("stream")
  itemsize = jnp.dtype(dtype).itemsize
  report = {
      "config": _MODEL.value or _PRESET.value, "dtype": dtype, "device": command.device(), "date": command.today(),
      "versions": command.versions(), "rounds": _ROUNDS.value, "matmul_flops_per_second": rate,
      "bandwidth_bytes_per_second": bandwidth, "checks": checks,
      "visual_tokens": int(ours[0].case.visual[0]), "text_tokens": _TEXT_TOKENS.value, "steps": _STEPS.value,
      "vision_flops": flops.vision(model.config, arrays), "seconds": clock.seconds,
      "cases": [{
          "keep_ratio": float(one.case.name), "tokens": int(one.case.tokens[0]), "cache_bytes": one.cache_bytes,
          "language_flops": flops.language_prefill(text, int(one.case.tokens[0])),
          "decode_bytes": flops.decode_bytes(text, int(one.case.tokens[0]) + _STEPS.value // 2, 1, itemsize),
          "compile_seconds": one.compile_seconds, "temporary_bytes": one.temporary_bytes} for one in ours],
  }
  (output / "benchmark.json").write_text(json.dumps(report, indent=1) + "\n")
  summary = benchmark_report.summarize(report)
  (output / "benchmark.md").write_text(summary + "\n")
  benchmark_report.plot(output / "benchmark.png", report)
  print(summary)
  print(f"\nwritten {output / 'benchmark.json'}, benchmark.md and benchmark.png")


def _sides(side: int) -> list[int]:
  """Heights of a batch of four unlike pictures, multiples of 28."""
  return [max(28, 28 * round(side * share / 28)) for share in (1, 0.75, 0.5, 1.25)]


def _add_baseline(clock, baseline, tensors, ours, batch, mixed):
  """The baseline's share of each round."""
  add = functools.partial(clock.add, wait=baseline.wait)
  add("torch vision", lambda: baseline.vision(tensors))
  for one in ours:
    kept = one.kept(0)
    add(f"torch first_token {one.case.name}", lambda kept=kept: baseline.prefill(tensors, kept))
    add(f"torch decode {one.case.name}", lambda *state: baseline.decode(*state, _STEPS.value),
        prepare=lambda kept=kept: baseline.prefill(tensors, kept))
  singles, start = [], 0
  for row, (grid, ids, mask) in enumerate(zip(mixed["image_grid_thw"], mixed["input_ids"], mixed["attention_mask"])):
    patches = int(grid.prod())
    alone = {"input_ids": ids[None, mask > 0], "pixel_values": mixed["pixel_values"][start:start + patches],
             "image_grid_thw": grid[None]}
    start += patches
    singles.append((baseline.tensors(alone), batch.kept(row)))

  def one_by_one():
    for alone, kept in singles:
      baseline.decode(*baseline.prefill(alone, kept), _STEPS.value)

  add("torch batch", one_by_one)


if __name__ == "__main__":
  command.run(main)
