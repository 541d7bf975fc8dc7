"""Answers a question about pictures with most of their visual tokens pruned, and shows which ones were kept.

  python -m experiments.generate --keep_ratio=0.2
  python -m experiments.generate --model=Qwen/Qwen2.5-VL-7B-Instruct --head_importance=preset:qwen2.5-vl-7b \
      --image=photo.jpg --prompt="What is this?" --keep_ratio=0.198
"""

from __future__ import annotations

import json
import time

from absl import flags
import jax
import numpy as np

from experiments import command
from experiments import data
from experiments import embedded
from experiments import figures
from hawk_jax import importance
from hawk_jax import scoring
from hawk_jax import selectors
from models import generation
from models import load_model
from models import load_processor
from models import processor as processor_lib
from models import sharding

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
_IMAGE = flags.DEFINE_multi_string("image", [str(embedded.DIRECTORY / "picture.png")],
                                   "Picture file; repeat for several. Empty: a question without a picture.")
_PROMPT = flags.DEFINE_string("prompt", "Which digit is red?", "The question.")
_KEEP_RATIO = flags.DEFINE_float("keep_ratio", None, "Share of the visual tokens to keep, in (0, 1].")
_KEEP_COUNT = flags.DEFINE_integer("keep_count", None, "Number of visual tokens to keep instead.")
_KEEP_MASS = flags.DEFINE_float("keep_mass", None, "Keep only as many of those as hold this share of the softmaxed score.")
_SELECTOR = flags.DEFINE_enum("selector", "hawk", [*selectors.SELECTORS, *selectors.IN_DECODER], "The rule that picks.")
_CLIP = flags.DEFINE_string("clip", None, "CLIP checkpoint directory or hub id that scores the visual tokens of "
                            "LLaVA-1.5, instead of HAWK; the selector cdpruner needs it.")
_HEAD_IMPORTANCE = flags.DEFINE_string("head_importance", "uniform", "preset:NAME, uniform, or a JSON file.")
_NORMALIZATION = flags.DEFINE_enum("normalization", "l2", scoring.NORMALIZATIONS, "Of each head's scores.")
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "Most tokens of an answer.")
_MIN_PIXELS = flags.DEFINE_integer("min_pixels", None, "Smaller pictures are scaled up to this many pixels.")
_MAX_PIXELS = flags.DEFINE_integer("max_pixels", None, "Larger pictures are scaled down to this many pixels.")
_DTYPE = flags.DEFINE_enum("dtype", None, ["float32", "bfloat16", "float16"],
                           "Of parameters and computation; by default float32 on CPU, bfloat16 elsewhere.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "out/generate", "Where result.json and kept_tokens.png go.")


def fused_scores(model, params, prompt, features, head_importance, normalization):
  """[B, V] float32 fused scores."""
  raw = model.apply({"params": params}, prompt, features, method="scores")
  return scoring.fuse(scoring.normalize(raw, prompt.visual_mask, normalization), head_importance)


def compiled(function, *args, **static):
  """Ahead-of-time compilation, so that compile seconds and run seconds are told apart."""
  return function.lower(*args, **static).compile()


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  if _KEEP_RATIO.value is not None and _KEEP_COUNT.value is not None:
    raise ValueError("keep_ratio and keep_count: give one of them")
  dtype = _DTYPE.value or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
  seconds, clock = {}, time.perf_counter

  def timed(name, function):
    began = clock()
    result = jax.block_until_ready(function())
    seconds[name] = seconds.get(name, 0.0) + clock() - began
    return result

  clip = data.load_clip(_CLIP.value, [_SELECTOR.value])
  paths = [path for path in _IMAGE.value if path]
  pictures = [processor_lib.open_picture(path) for path in paths]
  processor = load_processor(_MODEL.value)
  batch = processor(images=[pictures], prompts=[_PROMPT.value], min_pixels=_MIN_PIXELS.value, max_pixels=_MAX_PIXELS.value)
  model, params = timed("load", lambda: load_model(_MODEL.value, mesh=command.mesh(), dtype=dtype))
  head_importance = importance.load(_HEAD_IMPORTANCE.value, model.config.text.num_attention_heads)
  inputs = model.pack(**batch)
  prompt = inputs.prompt
  end_ids, sampling = generation.check_decoding(model, prompt, _MAX_NEW_TOKENS.value, processor.eos_token_ids)
  relevance = timed("clip", lambda: clip.relevance(model, params, inputs, [_PROMPT.value])) if clip else None
  pruning = generation.plan_pruning(model, prompt, head_importance, keep_ratio=_KEEP_RATIO.value,
                                    keep_count=_KEEP_COUNT.value, normalization=_NORMALIZATION.value,
                                    selector=_SELECTOR.value, keep_mass=_KEEP_MASS.value, scores=relevance)

  features = None
  if pictures:
    vision = sharding.place(inputs.vision, model.mesh)
    encode = timed("compile", lambda: compiled(generation.encode, params, vision, model=model))
    features = timed("vision", lambda: encode(params, vision))
  prefill_args = (params, prompt, features, pruning, sampling, end_ids)
  static = dict(model=model, max_new_tokens=_MAX_NEW_TOKENS.value)
  prefill = timed("compile", lambda: compiled(generation.prefill, *prefill_args, **static))
  state, order = timed("prefill", lambda: prefill(*prefill_args))
  kv_cache_bytes = state.cache.nbytes
  decode_args = (params, state, prompt.next_position, sampling, end_ids)
  decode = timed("compile", lambda: compiled(generation.decode, *decode_args, model=model))
  result = generation.finish(timed("decode", lambda: decode(*decode_args)), order)

  tokens = np.asarray(result.tokens)[0, :int(result.lengths[0])]
  answer = processor.decode(result.tokens, result.lengths)[0]
  kept_positions = np.asarray(result.kept_positions)[0]
  kept_positions = kept_positions[kept_positions >= 0]
  visual_positions = prompt.visual_order[0][prompt.visual_order[0] >= 0]
  kept = np.isin(visual_positions, kept_positions)
  text = model.config.text
  report = {
      "model": _MODEL.value,
      "prompt": _PROMPT.value,
      "images": paths,
      "answer": answer,
      "token_ids": tokens.tolist(),
      "keep_ratio": _KEEP_RATIO.value,
      "keep_count": _KEEP_COUNT.value,
      "keep_mass": _KEEP_MASS.value,
      "selector": _SELECTOR.value,
      "clip": _CLIP.value,
      "head_importance": head_importance.tolist(),
      "normalization": _NORMALIZATION.value,
      "visual_tokens": len(visual_positions),
      "kept_visual_tokens": int(kept.sum()),
      "prompt_tokens": len(visual_positions) + int((prompt.text_order >= 0).sum()),
      "kept_prompt_tokens": len(kept_positions),
      "kept_positions": kept_positions.tolist(),
      "kv_cache_bytes": kv_cache_bytes,
      "dtype": dtype,
      "platform": jax.default_backend(),
      "seconds": {name: round(value, 4) for name, value in seconds.items()},
  }
  (output / "result.json").write_text(json.dumps(report, indent=1) + "\n")
  if pictures:
    score = jax.jit(fused_scores, static_argnums=(0, 5))
    scores = relevance if clip else score(model, params, prompt, features, head_importance, _NORMALIZATION.value)
    figures.kept_tokens(output / "kept_tokens.png", pictures, model.views(**batch),
                        sharding.fetch(scores, model.mesh)[0][:len(visual_positions)], kept,
                        f"{_PROMPT.value}\nanswer: {answer}")

  print(f"question        {_PROMPT.value}")
  print(f"answer          {answer}")
  print(f"visual tokens   {report['kept_visual_tokens']} of {report['visual_tokens']} kept")
  print(f"prompt tokens   {report['kept_prompt_tokens']} of {report['prompt_tokens']}")
  length = state.cache.keys[0].shape[1]
  print(f"KV cache        {kv_cache_bytes / 1e6:.2f} MB = 2 x {text.num_hidden_layers} layers x {length} slots x "
        f"{text.num_key_value_heads} heads x {text.head_dim} x {state.cache.keys[0].dtype.itemsize} bytes")
  print("seconds         " + ", ".join(f"{name} {value:.3f}" for name, value in seconds.items()))
  print(f"written         {output / 'result.json'}" + (f", {output / 'kept_tokens.png'}" if pictures else ""))


if __name__ == "__main__":
  command.run(main)
