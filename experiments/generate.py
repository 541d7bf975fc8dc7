r"""Answers a question about pictures with most of their visual tokens pruned, and shows which ones were kept.

  python -m experiments.generate --keep_ratio=0.2
  python -m experiments.generate --model=Qwen/Qwen2.5-VL-7B-Instruct --head_importance=preset:qwen2.5-vl-7b \
      --image=photo.jpg --prompt="What is this?" --keep_ratio=0.198

Writes result.json and kept_tokens.png.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import time
from typing import Any

import jax
import numpy as np

from experiments.digits import embedded
from experiments.reporting import figures
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.running import processes
from hawk_jax import importance
from hawk_jax import pruning
from hawk_jax import scoring
from hawk_jax import selectors
from models import generation
from models import load_processor
from models import processor as processor_lib
from models import registry
from models import sharding
from models import stages
from models.checkpoints import params as params_lib
from models.llava import clip_text


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  image: tuple[str, ...] = command.option(
    (str(embedded.DIRECTORY / "picture.png"),), "Picture file. Empty: a question without a picture."
  )
  prompt: str = command.option("Which digit is red?", "The question.")
  keep_ratio: float | None = command.option(None, "Share of the visual tokens to keep, in (0, 1].")
  keep_count: int | None = command.option(None, "Number of visual tokens to keep instead.")
  keep_mass: float | None = command.option(
    None, "Adaptive budget: keep only as many tokens as hold this share of the softmaxed score."
  )
  selector: str = command.option("hawk", "Rule that picks tokens.", choices=lambda: selectors.SELECTORS)
  clip: str | None = command.option(
    None,
    "CLIP checkpoint directory or hub id, which scores the visual tokens of LLaVA-1.5 "
    "in place of HAWK; the selector cdpruner needs it.",
  )
  head_importance: str = command.option("uniform", "preset:NAME, uniform, or a JSON file.")
  normalization: str = command.option("l2", "How each head's scores are normalized.", choices=scoring.NORMALIZATIONS)
  max_new_tokens: int = command.option(64, "Largest number of tokens in the answer.")
  min_pixels: int | None = command.option(None, "Smaller pictures are scaled up to this many pixels.")
  max_pixels: int | None = command.option(None, "Larger pictures are scaled down to this many pixels.")
  dtype: str | None = command.option(
    None, "Dtype of parameters and computation; by default float32 on CPU and bfloat16 elsewhere.", choices=params_lib.DTYPES
  )
  output_dir: str = command.option("out/generate", "Directory for result.json and kept_tokens.png.")

  @property
  def pruning(self) -> pruning.Pruning:
    """The settings that concern pruning."""
    return pruning.Pruning(
      keep_ratio=self.keep_ratio,
      keep_count=self.keep_count,
      keep_mass=self.keep_mass,
      normalization=self.normalization,
      selector=self.selector,
    )


def run(settings: Settings) -> dict[str, Any]:
  """Answers, writes the files, and returns the content of result.json."""
  output = files.output_directory("output_dir", settings.output_dir)
  clip = clip_text.load_for([settings.pruning], settings.clip)
  directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
  text = model.config.text
  stages.check(settings.pruning, text.num_hidden_layers)
  head_importance = importance.load(settings.head_importance, text.num_attention_heads)
  paths = [path for path in settings.image if path]
  pictures = [processor_lib.open_picture(path) for path in paths]
  processor = load_processor(str(directory))
  inputs = model.pack(
    **processor(images=[pictures], prompts=[settings.prompt], min_pixels=settings.min_pixels, max_pixels=settings.max_pixels)
  )
  prompt = inputs.prompt
  end_ids = generation.check_length(model, prompt, settings.max_new_tokens, processor.eos_token_ids)

  watch, dtype = Stopwatch(), settings.dtype or environment.default_dtype()
  params = watch.time("load", registry.load_params, directory, model, dtype)
  relevance = watch.time("clip", clip.relevance, model, params, inputs, [settings.prompt]) if clip else None
  plan = generation.make_plan(model, prompt, settings.pruning, head_importance, scores=relevance)
  features = None
  if pictures:
    vision = sharding.place(inputs.vision, model.mesh)
    features = watch.compile_and_time("vision", generation.encode, params, vision, model=model)
  state, order = watch.compile_and_time(
    "prefill",
    generation.prefill,
    params,
    prompt,
    features,
    plan,
    None,
    end_ids,
    model=model,
    max_new_tokens=settings.max_new_tokens,
  )
  kv_cache_bytes, keys = state.cache.nbytes, state.cache.keys[0]
  state = watch.compile_and_time(
    "decode", generation.decode, params, state, prompt.next_position, None, end_ids, model=model
  )
  result = generation.finish(state, order)

  tokens = np.asarray(result.tokens)[0, : int(result.lengths[0])]
  answer = processor.decode(result.tokens, result.lengths)[0]
  kept_positions = np.asarray(result.kept_positions)[0]
  kept_positions = kept_positions[kept_positions >= 0]
  visual_positions = prompt.visual_order[0][prompt.visual_order[0] >= 0]
  kept = np.isin(visual_positions, kept_positions)
  report = {
    "model": settings.model,
    "prompt": settings.prompt,
    "images": paths,
    "answer": answer,
    "token_ids": tokens.tolist(),
    "keep_ratio": settings.keep_ratio,
    "keep_count": settings.keep_count,
    "keep_mass": settings.keep_mass,
    "selector": settings.selector,
    "clip": settings.clip,
    "head_importance": head_importance.tolist(),
    "normalization": settings.normalization,
    "visual_tokens": len(visual_positions),
    "kept_visual_tokens": int(kept.sum()),
    "prompt_tokens": len(visual_positions) + int(prompt.text_counts[0]),
    "kept_prompt_tokens": len(kept_positions),
    "kept_positions": kept_positions.tolist(),
    "kv_cache_bytes": kv_cache_bytes,
    "dtype": dtype,
    "platform": jax.default_backend(),
    "seconds": {name: round(value, 4) for name, value in watch.seconds.items()},
  }
  (output / "result.json").write_text(json.dumps(report, indent=1) + "\n")
  if pictures:
    plan = plan or pruning.Plan(len(visual_positions), settings.pruning, head_importance, scores=relevance)
    scores = sharding.fetch(fused_scores(params, prompt, features, plan, model=model), model.mesh)
    figures.kept_tokens(
      output / "kept_tokens.png",
      pictures,
      inputs.views[0],
      scores[0][: len(visual_positions)],
      kept,
      f"{settings.prompt}\nanswer: {answer}",
    )

  print(f"question        {settings.prompt}")
  print(f"answer          {answer}")
  print(f"visual tokens   {report['kept_visual_tokens']} of {report['visual_tokens']} kept")
  print(f"prompt tokens   {report['kept_prompt_tokens']} of {report['prompt_tokens']}")
  print(
    f"KV cache        {kv_cache_bytes / 1e6:.2f} MB = 2 x {text.num_hidden_layers} layers x {keys.shape[1]} slots x "
    f"{text.num_key_value_heads} heads x {text.head_dim} x {keys.dtype.itemsize} bytes"
  )
  print("seconds         " + ", ".join(f"{name} {value:.3f}" for name, value in watch.seconds.items()))
  print(f"written         {output / 'result.json'}" + (f", {output / 'kept_tokens.png'}" if pictures else ""))
  return report


class Stopwatch:
  """Seconds of named stages; compilation is a stage of its own."""

  def __init__(self):
    self.seconds: dict[str, float] = {}

  def time(self, stage: str, function, *args):
    """Calls a function, and adds the seconds that it takes to a stage."""
    began = time.perf_counter()
    result = jax.block_until_ready(function(*args))
    self.seconds[stage] = self.seconds.get(stage, 0.0) + time.perf_counter() - began
    return result

  def compile_and_time(self, stage: str, function, *args, **static):
    """Compiles a jitted function, as part of the stage `compile`, and calls it."""
    return self.time(stage, self.time("compile", lambda: function.lower(*args, **static).compile()), *args)


@functools.partial(jax.jit, static_argnames="model")
def fused_scores(params, prompt, features, plan, *, model):
  """[B, V] float32 fused scores, for the picture."""
  return model.apply({"params": params}, prompt, features, plan, method="fused_scores")


if __name__ == "__main__":
  command.main(Settings, run)
