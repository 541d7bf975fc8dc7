"""Compiles a model's programs for a slice, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent import futures
import dataclasses
import functools
import os
import time
from typing import Any

import jax
import numpy as np
import tqdm

from experiments.speed import flops
from experiments.tpu import hlo
from hawk_jax.prompt import Prompt
from hawk_jax.pruning import Pruning
from models import generation
from models import sharding
from models.checkpoints import params as params_lib
from models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class Batch:
  """Prompts of one picture each.

  Attributes:
    prompt: the language side, NumPy.
    vision: the port's vision arrays as abstract shapes.
    vision_flops: of the vision encoder for all pictures.
  """

  prompt: Prompt
  vision: Any
  vision_flops: float


def make_batch(model: VisionLanguageModel, size: tuple[int, int], batch: int, text_tokens: int) -> Batch:
  """Packs black pictures.

  Args:
    model: a port.
    size: height and width of every picture in pixels.
    batch: number of prompts.
    text_tokens: of each prompt.
  """
  arrays = model.synthetic_batch([size] * batch, text_tokens)
  inputs = model.pack(**arrays)
  vision = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs.vision)
  return Batch(inputs.prompt, vision, model.vision_flops(arrays))


class Compiler:
  """Compiles the programs of a model for the chips of its mesh.

  Attributes:
    params: abstract, with their shardings.
  """

  def __init__(self, model: VisionLanguageModel, chip: hlo.Chip, dtype: str, done: Callable[[], Any]):
    """Takes a model, and `done`, which is called after every program."""
    self.model, self.chip, self.done = model, chip, done
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, dtype), params_lib.abstract(model))
    self.params = hlo.on_mesh(shapes, sharding.param_specs(shapes, model))
    self.weights = hlo.shard_bytes(self.params)

  def rows_split(self, tree):
    """Abstract shapes of arrays with dimension 0 split over the batch axes, as commands place their inputs."""
    place = lambda x: sharding.sharding(self.model.mesh, np.shape(x), sharding.BATCH)
    return hlo.on_mesh(tree, jax.tree.map(place, tree))

  def compile(
    self,
    name: str,
    function,
    *args,
    work: float = 0.0,
    causal: bool = False,
    cache: Callable[[Any], Any] = lambda out: None,
    about: dict[str, Any] | None = None,
    **static,
  ) -> tuple[dict[str, Any], Any]:
    """Compiles `function(params, *args)`.

    Args:
      name: of the program.
      function: jitted.
      *args: abstract.
      work: FLOPs of the model.
      causal: as in `hlo.predict`.
      cache: picks the key/value cache from the function's results.
      about: more fields of the row.
      **static: the function's static arguments.

    Returns:
      What is known of the program, for JSON, and the function's abstract results with their shardings; None if it does not
      fit.
    """
    began = time.perf_counter()
    row = {"program": name, **(about or {}), "weights_bytes": self.weights, "model_flops": work}
    held = self.weights + hlo.shard_bytes(args)
    try:
      lowered = function.lower(self.params, *args, model=self.model, **static)
      compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
      needed = hlo.memory_needed(error, held)
      if needed is None:
        raise
      self.done()
      return {**row, "fits": False, "needed_bytes": needed, "compile_seconds": time.perf_counter() - began}, None
    cost = hlo.read(compiled, time.perf_counter() - began)
    seconds = hlo.predict(cost, self.chip, causal, work / self.model.mesh.size)
    out = hlo.on_mesh(lowered.out_info, compiled.output_shardings)
    cached = cache(out)
    needed = held + cost.outputs + cost.temporaries
    self.done()
    return {
      **row,
      **dataclasses.asdict(cost),
      "fits": needed <= self.chip.memory,
      "needed_bytes": needed,
      "cache_bytes": 0 if cached is None else hlo.shard_bytes((cached.keys, cached.values)),
      "seconds": dataclasses.asdict(seconds),
      "predicted_seconds": seconds.total,
    }, out


def compile_all(
  model: VisionLanguageModel, chip: hlo.Chip, batch: Batch, ratios: Sequence[float], dtype: str, max_new_tokens: int
) -> list[dict[str, Any]]:
  """What is known of vision, of prefill at each keep ratio, and of one decoding step after it; compiled in parallel.

  Args:
    model: a port on a mesh.
    chip: of the mesh.
    batch: of `make_batch`.
    ratios: keep ratios.
    dtype: of parameters, activations and cache.
    max_new_tokens: room for the answer.
  """
  end_ids = generation.check_length(model, batch.prompt, max_new_tokens)
  with tqdm.tqdm(total=1 + 2 * len(ratios), unit="program") as bar, futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    compiler = Compiler(model, chip, dtype, bar.update)
    features = jax.eval_shape(functools.partial(generation.encode, model=model), compiler.params, batch.vision)
    features = hlo.on_mesh(
      features, jax.tree.map(lambda x: sharding.sharding(model.mesh, x.shape, None, sharding.BATCH), features)
    )
    vision = lambda: [
      compiler.compile("vision", generation.encode, compiler.rows_split(batch.vision), work=batch.vision_flops)[0]
    ]
    answer = functools.partial(_compile_answer, compiler, batch.prompt, features, end_ids, max_new_tokens)
    jobs = [threads.submit(vision), *(threads.submit(answer, ratio) for ratio in ratios)]
    return [row for job in jobs for row in job.result()]


def _compile_answer(
  compiler: Compiler, prompt: Prompt, features, end_ids: np.ndarray, max_new_tokens: int, ratio: float
) -> list[dict[str, Any]]:
  """Prefill at a keep ratio, and decoding after it if the prefill fits."""
  model = compiler.model
  text, visual = model.config.text, int(prompt.visual_counts.max())
  plan = generation.make_plan(model, prompt, Pruning(keep_ratio=ratio))
  tokens = int(prompt.text_counts.max()) + (visual if plan is None else int(np.max(plan.counts)))
  work = flops.language_prefill(text, tokens) + (0 if plan is None else flops.scoring(text, visual))
  about, ends = {"keep_ratio": ratio, "tokens": tokens}, compiler.rows_split(end_ids)
  prefill, out = compiler.compile(
    "prefill",
    generation.prefill,
    compiler.rows_split(prompt),
    features,
    compiler.rows_split(plan),
    None,
    ends,
    work=work * len(prompt.text_tokens),
    causal=True,
    cache=lambda out: out[0].cache,
    about=about,
    max_new_tokens=max_new_tokens,
  )
  if out is None:
    compiler.done()
    return [prefill]
  decode, _ = compiler.compile(
    "decode",
    generation.decode,
    out[0],
    compiler.rows_split(prompt.next_position),
    None,
    ends,
    cache=lambda out: out.cache,
    about=about,
  )
  return [prefill, decode]
