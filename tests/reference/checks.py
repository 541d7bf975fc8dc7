"""What the tests of all ports share: running raw arrays, and pruning redone in NumPy and without a cache.

Axes: B batch, S prompt, V visual tokens, D hidden size, A position axes, H heads.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
import tempfile

from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from safetensors import safe_open

import models
from models.checkpoints import hf
from models.decoder import DeepStack
from tests.reference import numpy_hawk
from tests.reference import tiny

TOLERANCE = 1e-4
RELATIVE_TOLERANCE = 2e-5
# float32 may decide a choice otherwise if it is closer than this: relative to the scores, and in logits.
LEAST_SCORE_GAP = 1e-5
LEAST_LOGIT_LEAD = 1e-4


@functools.cache
def load(reference, config_name):
  """Model and parameters, by way of a checkpoint on disk; every other config with the hub's older names."""
  hub_style = list(reference.CONFIGS).index(config_name) % 2 == 1
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name, hub_style=hub_style)
    return models.load_model(directory)


@functools.cache
def goldens(reference):
  """The recorded arrays, and the file's metadata."""
  with safe_open(reference.GOLDENS, "numpy") as file:
    return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


def check_goldens(reference, config_name):
  """Fails unless the goldens belong to these weights and prompts."""
  expected, metadata = goldens(reference)
  np.testing.assert_allclose(tiny.fingerprint(reference, config_name), expected[f"{config_name}/fingerprint"], rtol=1e-5)
  names = json.loads(metadata["tensor_names"])[config_name]
  np.testing.assert_array_equal(names, sorted(reference.shapes(reference.CONFIGS[config_name])))


@functools.cache
def check_names_of_all_ages(reference, config_name):
  """Newer and older names of tensors load the same, and what is saved loads again."""
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name)
    model, params = models.load_model(directory)
    reference.write_checkpoint(directory, config_name, hub_style=True)
    hub_model, hub_params = models.load_model(directory)
    assert model == hub_model
    jax.tree.map(np.testing.assert_array_equal, params, hub_params)
    (pathlib.Path(directory) / "model.safetensors").unlink()
    hf.save(directory, model, params)
    jax.tree.map(np.testing.assert_array_equal, params, models.load_model(directory)[1])


def alone(reference, config_name, case):
  """One prompt's features and logits."""
  return run(*load(reference, config_name), reference.case(case))[0]


def check_row(reference, config_name, case, features, logits):
  """Compares one prompt's features and logits with transformers'."""
  expected, _ = goldens(reference)
  key = f"{config_name}/{case}"
  close(features[reference.feature_rows(len(features))], expected[f"{key}/features"], f"{key} features")
  close(logits[reference.logit_rows(len(logits))], expected[f"{key}/logits"], f"{key} logits")


def check_tokens(reference, config_name, cases, arrays):
  """Compares greedy answers, a row a case, with transformers'."""
  tokens = answer(*load(reference, config_name), arrays, reference.NEW_TOKENS)
  for case, row in zip(cases, tokens, strict=True):
    np.testing.assert_array_equal(row, goldens(reference)[0][f"{config_name}/{case}/tokens"], err_msg=case)


def close(actual, expected, name):
  """Fails unless the largest absolute and the root mean square relative error are within the tolerances."""
  if actual.shape != expected.shape:
    raise AssertionError(f"{name}: shape {actual.shape}, expected {expected.shape}")
  if not expected.size:
    return
  error = np.abs(actual - expected).max()
  relative = np.linalg.norm(actual - expected) / np.linalg.norm(expected)
  # `not <=` so that NaN fails.
  if not error <= TOLERANCE or not relative <= RELATIVE_TOLERANCE:
    raise AssertionError(f"{name}: largest error {error:.2e}, relative {relative:.2e}")


@functools.partial(jax.jit, static_argnames="model")
def features_and_logits(params, inputs, *, model):
  """Features by slot (None without pictures), those of DeepStack beside the others, and logits with their order."""

  def call(module, inputs):
    encoded = []

    def keep(method, args, kwargs, context):
      found = method(*args, **kwargs)
      if context.method_name == "encode":
        encoded.append(jnp.concatenate([found.tokens, *found.levels], axis=-1))
      return found

    with nn.intercept_methods(keep):
      output = module(inputs)
    return (encoded or [None])[-1], output  # the outermost, where one `encode` calls another

  return model.apply({"params": params}, inputs, method=call)


def run(model, params, arrays):
  """Runs a batch without pruning.

  Args:
    model: a port.
    params: its parameters.
    arrays: raw Hugging Face arrays.

  Returns:
    For each row, [V, D] features of its visual tokens in prompt order (with DeepStack D for every level), and [S, vocab]
    logits.
  """
  inputs = model.pack(**arrays)
  prompt = inputs.prompt
  encoded, output = jax.device_get(features_and_logits(params, inputs, model=model))
  rows = []
  for number, length in enumerate(arrays["attention_mask"].sum(axis=1)):
    np.testing.assert_array_equal(output.order[number, :length], np.arange(length))
    np.testing.assert_array_equal(output.order[number, length:], -1)
    slots = prompt.visual_slots[number, prompt.visual_order[number] >= 0]
    features = encoded[slots] if len(slots) else np.zeros([0, model.config.text.hidden_size], np.float32)
    rows.append((features, output.logits[number, :length]))
  return rows


def answer(model, params, arrays, new_tokens):
  """Greedy tokens [B, new_tokens] of unpruned prompts, without a stop token."""
  out = models.generate(model, params, model.pack(**arrays), max_new_tokens=new_tokens, eos_token_ids=())
  np.testing.assert_array_equal(out.lengths, new_tokens)
  for kept, length in zip(np.asarray(out.kept_positions), arrays["attention_mask"].sum(axis=1), strict=True):
    np.testing.assert_array_equal(kept[:length], np.arange(length))
    np.testing.assert_array_equal(kept[length:], -1)
  return np.asarray(out.tokens)


@dataclasses.dataclass(frozen=True)
class Merged:
  """One prompt before pruning.

  Attributes:
    ids: [S].
    embeddings: [S, D], text and visual.
    positions: [S, A].
    levels: [DeepStack levels, S, D], zeros on text.
  """

  ids: np.ndarray
  embeddings: np.ndarray
  positions: np.ndarray
  levels: np.ndarray


def merged(model, params, arrays) -> list[Merged]:
  """The prompts of a batch, from what `pack` and `encode` give."""
  inputs = model.pack(**arrays)
  prompt, table = inputs.prompt, np.asarray(params["language_model"]["embed_tokens"]["embedding"])
  features = None if inputs.vision is None else jax.device_get(models.generation.encode_pictures(model, params, inputs))
  rows = []
  for number, (ids, mask) in enumerate(zip(arrays["input_ids"], arrays["attention_mask"].astype(bool))):
    ids = ids[mask]
    embeddings, positions = table[ids], np.zeros([len(ids), prompt.text_positions.shape[-1]], np.int32)
    text, visual = prompt.text_order[number], prompt.visual_order[number]
    positions[text[text >= 0]] = prompt.text_positions[number, text >= 0]
    positions[visual[visual >= 0]] = prompt.visual_positions[number, visual >= 0]
    levels = np.zeros([0 if features is None else len(features.levels), *embeddings.shape], np.float32)
    if features is not None:
      slots = prompt.visual_slots[number, visual >= 0]
      embeddings[visual[visual >= 0]] = features.tokens[slots]
      for level, added in zip(levels, features.levels):
        level[visual[visual >= 0]] = added[slots]
    rows.append(Merged(ids, embeddings, positions, levels))
  return rows


def expected_positions(
  model, params, rows, head_importance, normalization, *, visual_ids, vision_end_id=None, im_end_id=None, **keep
):
  """Prompt positions that a plain reading of docs/method.md keeps of each prompt.

  Args:
    model: a port.
    params: its parameters.
    rows: of `merged`.
    head_importance: [H] or [B, H].
    normalization: of the scores.
    visual_ids: the placeholders.
    vision_end_id: or None.
    im_end_id: or None.
    **keep: keep_ratio or keep_count.
  """
  text = model.config.text
  layer = params["language_model"]["layers_0"]
  attention = {}
  for name in ("q_proj", "k_proj", "q_norm", "k_norm"):
    for kind, value in layer["self_attn"].get(name, {}).items():
      attention[f"{name}.{ {'kernel': 'weight', 'scale': 'weight'}.get(kind, kind) }"] = np.asarray(value).T
  importance = np.broadcast_to(head_importance, (len(rows), text.num_attention_heads))
  positions = []
  for number, (row, weights) in enumerate(zip(rows, importance, strict=True)):
    normed = numpy_hawk.rms_norm(row.embeddings, layer["input_layernorm"]["scale"], text.rms_norm_eps)
    kept, gap = numpy_hawk.prune(
      row.ids,
      normed,
      attention,
      num_heads=text.num_attention_heads,
      num_key_value_heads=text.num_key_value_heads,
      head_importance=weights,
      normalization=normalization,
      visual_ids=visual_ids,
      vision_end_id=vision_end_id,
      im_end_id=im_end_id,
      epsilon=text.rms_norm_eps,
      **keep,
    )
    if gap < LEAST_SCORE_GAP:
      raise AssertionError(f"prompt {number}: scores at the cut are {gap} apart, choose another importance")
    positions.append(kept)
  return positions


def deepstack(levels: np.ndarray) -> DeepStack | None:
  """Levels [n, B, T, D] of whole sequences, in which every token has a row of its own; None if there are none."""
  count, batch, length, width = levels.shape
  if not count:
    return None
  slots = np.arange(batch * length).reshape(batch, length)
  return DeepStack(tuple(levels.reshape(count, batch * length, width)), slots, np.ones([batch, length], bool))


@functools.partial(jax.jit, static_argnames="model")
def _whole_sequences(params, x, positions, added, *, model):
  """Embeddings [B, T, D], positions [B, T, A] and `deepstack` to logits [B, T, vocab]; no cache."""
  call = lambda module, x, positions: module.logits(module.language_model.prefill(x, positions, deepstack=added)[0])
  return model.apply({"params": params}, x, positions, method=call)


def recompute(model, params, rows, kept, new_tokens):
  """Greedy tokens [B, new_tokens] from the kept tokens at their own positions, every step over the whole sequence.

  Args:
    model: a port.
    params: its parameters.
    rows: of `merged`.
    kept: prompt positions kept of each row.
    new_tokens: to generate.
  """
  table = np.asarray(params["language_model"]["embed_tokens"]["embedding"])
  length = max(len(row.ids) for row in rows) + new_tokens
  x = np.zeros([len(rows), length, table.shape[1]], np.float32)
  positions = np.zeros([len(rows), length, rows[0].positions.shape[1]], np.int32)
  levels = np.zeros([len(rows[0].levels), *x.shape], np.float32)
  ends = np.array([len(row) for row in kept])
  following = np.array([row.positions.max() + 1 for row in rows])
  for number, (here, row) in enumerate(zip(kept, rows, strict=True)):
    x[number, : len(here)] = row.embeddings[here]
    positions[number, : len(here)] = row.positions[here]
    levels[:, number, : len(here)] = row.levels[:, here]
  tokens = []
  every, added = np.arange(len(rows)), deepstack(levels)
  for step in range(new_tokens):
    logits = np.asarray(_whole_sequences(params, x, positions, added, model=model))[every, ends + step - 1]
    best = np.sort(logits, axis=-1)
    if (best[:, -1] - best[:, -2]).min() < LEAST_LOGIT_LEAD:
      raise AssertionError(f"step {step}: the two best logits are too close, choose another importance")
    tokens.append(logits.argmax(axis=-1))
    x[every, ends + step] = table[tokens[-1]]
    positions[every, ends + step] = (following + step)[:, None]
  return np.stack(tokens, axis=1)


def uneven_importance(heads, rows=None):
  """[H], or [rows, H], random weights with a zero among them."""
  weights = np.random.default_rng(2).dirichlet(np.ones(heads), rows).astype(np.float32)
  weights[..., 1] = 0
  return weights


def check_pruning(model, params, arrays, head_importance, normalization, new_tokens, tokens_of, **keep):
  """Fails unless kept positions equal the NumPy version's, and tokens those of the recompute.

  Args:
    model: a port.
    params: its parameters.
    arrays: raw Hugging Face arrays.
    head_importance: [H] or [B, H].
    normalization: of the scores.
    new_tokens: to generate.
    tokens_of: visual_ids, vision_end_id and im_end_id of `expected_positions`.
    **keep: keep_ratio or keep_count.
  """
  out = models.generate(
    model,
    params,
    model.pack(**arrays),
    head_importance=head_importance,
    normalization=normalization,
    max_new_tokens=new_tokens,
    eos_token_ids=(),
    **keep,
  )
  rows = merged(model, params, arrays)
  expected = expected_positions(model, params, rows, head_importance, normalization, **tokens_of, **keep)
  for number, (kept, row) in enumerate(zip(expected, np.asarray(out.kept_positions), strict=True)):
    np.testing.assert_array_equal(row[: len(kept)], kept, err_msg=f"prompt {number}")
    np.testing.assert_array_equal(row[len(kept) :], -1, err_msg=f"prompt {number}")
  np.testing.assert_array_equal(np.asarray(out.tokens), recompute(model, params, rows, expected, new_tokens))
