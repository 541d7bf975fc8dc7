"""Compiles a model's programs for a slice, from shapes alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
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
from models import stages
from models.checkpoints import params as params_lib
from models.tower import TowerPlan
from models.vision_language import VisionLanguageModel


@dataclasses.dataclass(frozen=True)
class Batch:
  """Prompts of one picture each.

  Attributes:
    prompt: the language side, NumPy.
    vision: the port's vision arrays as abstract shapes.
    vision_flops: of the vision encoder for all pictures.
    staged: by schedule, the settings, the stage in the vision tower and the `limits` of `generation.make_plan`.
  """

  prompt: Prompt
  vision: Any
  vision_flops: float
  staged: Mapping[str, tuple[Pruning, TowerPlan | None, np.ndarray | None]] = dataclasses.field(default_factory=dict)


def make_batch(
  model: VisionLanguageModel, size: tuple[int, int], batch: int, text_tokens: int, schedules: Sequence[str] = ()
) -> Batch:
  """Packs black pictures.

  Args:
    model: a port.
    size: height and width of every picture in pixels.
    batch: number of prompts.
    text_tokens: of each prompt.
    schedules: of `Pruning.stages`.
  """
  arrays = model.synthetic_batch([size] * batch, text_tokens)
  inputs = model.pack(**arrays)
  vision = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), inputs.vision)
  staged = {}
  for text in schedules:
    settings = Pruning(stages=text)
    staged[text] = (settings, *stages.plan_tower(model, inputs, settings))
  return Batch(inputs.prompt, vision, model.vision_flops(arrays), staged)


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
      "cache_bytes": 0 if cached is None else hlo.shard_bytes(_keys_values(cached)),
      "seconds": dataclasses.asdict(seconds),
      "predicted_seconds": seconds.total,
    }, out


def _keys_values(cache):
  return (cache.keys, cache.values) + (() if cache.later is None else _keys_values(cache.later))


def compile_all(
  model: VisionLanguageModel, chip: hlo.Chip, batch: Batch, ratios: Sequence[float], dtype: str, max_new_tokens: int
) -> list[dict[str, Any]]:
  """What is known of vision, of prefill at each keep ratio, and of one decoding step after it; compiled in parallel.

  Then the same for every schedule of the batch.

  Args:
    model: a port on a mesh.
    chip: of the mesh.
    batch: of `make_batch`.
    ratios: keep ratios.
    dtype: of parameters, activations and cache.
    max_new_tokens: room for the answer.
  """
  end_ids = generation.check_length(model, batch.prompt, max_new_tokens)
  total = 1 + 2 * len(ratios) + 3 * len(batch.staged)
  with tqdm.tqdm(total=total, unit="program") as bar, futures.ThreadPoolExecutor(os.cpu_count()) as threads:
    compiler = Compiler(model, chip, dtype, bar.update)
    job = functools.partial(threads.submit, _compile_vision, compiler, batch)
    answer = functools.partial(threads.submit, _compile_answer, compiler, batch.prompt, end_ids, max_new_tokens)
    whole = _features(compiler, batch, None)
    jobs = [job(None, {})]
    jobs += [answer(whole, Pruning(keep_ratio=ratio), {"keep_ratio": ratio}) for ratio in ratios]
    for text, (settings, tower, limits) in batch.staged.items():
      about = {"keep_ratio": stages.resolve(settings, model).entering, "stages": text}
      jobs += [job(tower, about), answer(_features(compiler, batch, tower), settings, about, limits)]
    return [row for job in jobs for row in job.result()]


def _tower_arguments(compiler: Compiler, batch: Batch, tower: TowerPlan | None) -> tuple:
  """The arguments of `generation.encode` after the parameters."""
  if tower is None:
    return (compiler.rows_split(batch.vision),)
  prompt = compiler.rows_split(batch.prompt) if tower.plan is not None else None
  return compiler.rows_split(batch.vision), prompt, compiler.rows_split(tower)


def _features(compiler: Compiler, batch: Batch, tower: TowerPlan | None):
  """Abstract features as the vision encoder leaves them."""
  mesh, arguments = compiler.model.mesh, _tower_arguments(compiler, batch, tower)
  features = jax.eval_shape(functools.partial(generation.encode, model=compiler.model), compiler.params, *arguments)
  return hlo.on_mesh(features, jax.tree.map(lambda x: sharding.sharding(mesh, x.shape, None, sharding.BATCH), features))


def _compile_vision(
  compiler: Compiler, batch: Batch, tower: TowerPlan | None, about: dict[str, Any]
) -> list[dict[str, Any]]:
  """The vision encoder, with a stage or without; the FLOPs of one with a stage are only those of its program."""
  work = batch.vision_flops if tower is None else 0.0
  arguments = _tower_arguments(compiler, batch, tower)
  return [compiler.compile("vision", generation.encode, *arguments, work=work, about=about)[0]]


def _compile_answer(
  compiler: Compiler,
  prompt: Prompt,
  end_ids: np.ndarray,
  max_new_tokens: int,
  features,
  settings: Pruning,
  about: dict[str, Any],
  limits: np.ndarray | None = None,
) -> list[dict[str, Any]]:
  """Prefill with some settings of pruning, and decoding after it if the prefill fits."""
  model = compiler.model
  text, visual = model.config.text, int(prompt.visual_counts.max())
  plan = generation.make_plan(model, prompt, settings, limits=limits)
  entering = visual if plan is None or plan.counts is None else int(np.max(plan.counts))
  tokens = int(prompt.text_counts.max()) + entering
  # With stages in the decoder, only the FLOPs of the program count.
  staged = plan is not None and bool(plan.cuts)
  work = 0 if staged else flops.language_prefill(text, tokens) + (0 if plan is None else flops.scoring(text, visual))
  about, ends = {**about, "tokens": tokens}, compiler.rows_split(end_ids)
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
