"""Cases of `generate` and `apply`: settings, importance, features and arguments in the wrong place."""

from __future__ import annotations

import functools
import pathlib

import jax
import numpy as np

from hawk_jax import budgets
from models import generate
from models import generation
from models import registry
from models.checkpoints import params as params_lib
from tests.fuzz import spoil
from tests.reference import qwen2_5_vl

_TOKENS = 2


def answer(rng: np.random.Generator) -> None:
  """`generate`: tokens of the vocabulary, as many as asked for, and as many visual tokens as the budget allows."""
  model, params, inputs, features = _model()
  heads = model.config.text.num_attention_heads
  arguments = dict(
    head_importance=rng.random(heads) * 10.0 ** spoil.choose(rng, (0, 0, -40, 30)),
    features=features,
    keep_ratio=spoil.choose(rng, (0.25, 0.26)),  # of one bucket: few programs are compiled
    temperature=spoil.choose(rng, (0.5, 1e-300, 1e300)),
    top_k=int(rng.integers(3)),
    top_p=spoil.choose(rng, (1.0, 0.5, 1e-300)),
    seed=int(rng.integers(2**40)),
    selector_seed=int(rng.integers(2**40)),
    eos_token_ids=[7, 9],
    max_new_tokens=_TOKENS,
    return_logits=True,
  )
  if rng.integers(4):
    key = spoil.choose(rng, tuple(arguments))
    value = arguments[key]
    arguments[key] = spoil.array(rng, value) if isinstance(value, np.ndarray) else spoil.choose(rng, spoil.JUNK)
  first = [model, params, inputs]
  if rng.integers(10) == 0:
    first[rng.integers(3)] = spoil.choose(rng, (*first, *spoil.JUNK))
  out = generate(*first, **arguments)
  tokens, lengths, kept = np.asarray(out.tokens), np.asarray(out.lengths), np.asarray(out.kept_positions)
  assert tokens.shape[0] == 1 and (tokens >= 0).all() and (tokens < model.config.text.vocab_size).all(), tokens
  assert 1 <= lengths[0] <= tokens.shape[1], lengths
  assert out.logits is None or np.isfinite(out.logits).all()
  visual = np.asarray(inputs.prompt.visual_order[0])
  ratio = arguments["keep_ratio"]
  wanted = budgets.keep_counts([(visual >= 0).sum()], keep_ratio=None if ratio is None else float(ratio))[0]
  assert np.isin(visual[visual >= 0], kept[0]).sum() == wanted, (wanted, kept)


def apply(rng: np.random.Generator) -> None:
  """`model.apply` with settings of its own."""
  model, params, inputs, _ = _model()
  heads = model.config.text.num_attention_heads
  weights, counts = rng.random(heads).astype(np.float32), np.asarray([rng.integers(1, 17)])
  arguments = dict(head_importance=weights, keep_count=16, counts=counts, normalization="l2")
  key = spoil.choose(rng, tuple(arguments))
  value = arguments[key]
  if rng.integers(3) == 0:
    pass
  elif key in ("counts", "head_importance"):
    shapes = ([], [2], [1, 1], [heads], [1, heads], [3, heads], [0])
    arguments[key] = spoil.choose(rng, (None, "a", 1.5, *(np.ones(shape, value.dtype) for shape in shapes)))
  else:
    arguments[key] = spoil.choose(rng, spoil.JUNK)
  shapes = jax.eval_shape(lambda params: model.apply({"params": params}, inputs, **arguments), params)
  assert shapes.logits.shape[-1] == model.config.text.vocab_size


@functools.cache
def _model():
  model = registry.build(pathlib.Path("tiny"), qwen2_5_vl.CONFIGS["gqa"])
  params, inputs = params_lib.init(model), model.pack(**qwen2_5_vl.case("square"))
  return model, params, inputs, generation.encode_pictures(model, params, inputs)


SUBJECTS = {"generate": answer, "apply": apply}
