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
import time

from absl import flags
from absl import logging
import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from experiments import command
from experiments import figures
from experiments import flops
from models import checkpoint
from models import generation
from models import load_model
from models import registry

_CONFIGS = pathlib.Path(__file__).parent / "configs"
_PRESETS = {"cpu": ("cpu", "float32"), "gpu-7b": ("gpu-7b", "bfloat16")}

_PRESET = flags.DEFINE_enum("preset", "cpu", list(_PRESETS), "A configuration with random weights, and its dtype.")
_MODEL = flags.DEFINE_string("model", None, "Checkpoint directory or hub id instead of a preset.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"], "Instead of the preset's.")
_BASELINE = flags.DEFINE_enum("baseline", "none", ["none", "transformers"], "What to measure beside it; needs torch.")
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.4, 0.198, 0.1], "Shares of the visual tokens to keep.")
_SIDE = flags.DEFINE_integer("side", 784, "Height and width of the picture in pixels.", lower_bound=1)
_TEXT_TOKENS = flags.DEFINE_integer("text_tokens", 44, "Text tokens of the prompt.", lower_bound=4)
_STEPS = flags.DEFINE_integer("steps", 15, "Decoding steps after the first token.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 5, "Measurements of each figure.", lower_bound=1)
_COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Compile with abstract weights, and tell how long that takes.")
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


def make_batch(model, sizes, text_tokens: int, rng) -> dict[str, np.ndarray]:
  """A processor's arrays: for each (height, width) a prompt with a picture of noise before random words.

  Only for models whose pictures keep their size (Qwen2.5-VL) or become one tile (LLaVA-1.5).
  """
  config = model.config
  words = lambda count: rng.integers(5, min(config.text.vocab_size, 8000), count).tolist()
  normal = lambda *shape: rng.standard_normal(shape, np.float32)
  if hasattr(config, "vision_end_token_id"):
    unit = config.vision.patch_size * config.vision.spatial_merge_size
    merge = config.vision.spatial_merge_size
    grids = np.asarray([[1, merge * (height // unit), merge * (width // unit)] for height, width in sizes])
    arrays = {"pixel_values": normal(int(grids.prod(axis=1).sum()), config.vision.patch_dim), "image_grid_thw": grids}
    counts = grids.prod(axis=1) // config.vision.merge_unit
    around = ([config.vision_start_token_id], [config.vision_end_token_id])
  else:
    arrays = {"pixel_values": normal(len(sizes), *config.vision.tile_shape)}
    counts, around = [config.vision.tokens] * len(sizes), ([], [])
  rows = [words(text_tokens // 2 - 1) + around[0] + [config.image_token_id] * int(count) + around[1] +
          words(text_tokens - text_tokens // 2 - 1) for count in counts]
  length = max(map(len, rows))
  return {"input_ids": np.asarray([row + [0] * (length - len(row)) for row in rows]),
          "attention_mask": np.asarray([[1] * len(row) + [0] * (length - len(row)) for row in rows]), **arrays}


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
    return module.logits(jax.vmap(lambda rows, length: rows[length - 1])(out.hidden, out.lengths)), out.keys_values

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


class Clock:
  """Seconds of functions, called in turn."""

  def __init__(self):
    self.functions, self.seconds = {}, {}

  def add(self, name, function, prepare=lambda: None, wait=lambda: None):
    """Adds a function of what `prepare` returns; `prepare` is not timed."""
    self.functions[name] = (function, prepare, wait)
    self.seconds[name] = []

  def run(self, rounds: int) -> None:
    """Every function once a round, after a first round that does not count."""
    with tqdm.tqdm(total=(rounds + 1) * len(self.functions), unit="call") as bar:
      for number in range(rounds + 1):
        for name, (function, prepare, wait) in self.functions.items():
          bar.set_description(name)
          prepared = prepare()
          wait()
          began = time.perf_counter()
          function(*(() if prepared is None else prepared))
          wait()
          if number:
            self.seconds[name].append(time.perf_counter() - began)
          bar.update()

  def median(self, name) -> float:
    return float(np.median(self.seconds[name]))


def machine_rates(dtype: str) -> tuple[callable, float, callable, float]:
  """Programs that run at this machine's limits: a matrix product with its FLOPs, and a matrix-vector product with its bytes."""
  large = jax.default_backend() != "cpu"
  size, rows = (8192, 8192) if large else (2048, 1024)
  a, b = jnp.ones([rows, size], dtype), jnp.ones([size, size], dtype)
  product = jax.jit(lambda a, b: a @ b)
  wide = jnp.ones([16384 if large else 8192, 8192], dtype)
  vector = jnp.ones([1, 8192], dtype)
  stream = jax.jit(lambda v, w: v @ w.T)
  return (lambda: jax.block_until_ready(product(a, b)), 2.0 * rows * size * size,
          lambda: jax.block_until_ready(stream(vector, wide)), float(wide.nbytes))
