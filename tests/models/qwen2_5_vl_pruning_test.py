"""Pruning of Qwen2.5-VL against METHOD sections 3 and 4 in NumPy, and the compacted cache against no cache at all."""

import functools
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from hawk_jax import scoring
import models
from tests.reference import numpy_hawk
from tests.reference import qwen2_5_vl as reference

# Several pictures, a video, both at once, no picture, no im_end, and no text after the picture.
PROMPTS = ("two_images", "text_only", "image_and_video", "no_end", "three_images", "no_instruction", "ragged_6x50")
RATIOS = (0.4, 0.198, 0.1)
NEW_TOKENS = 12
# float32 may decide a choice otherwise if it is closer than this: relative to the scores, and in logits.
LEAST_SCORE_GAP = 1e-5
LEAST_LOGIT_LEAD = 1e-4


@functools.cache
def load(config_name):
  """Model and parameters, by way of a checkpoint on disk."""
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name)
    return models.load_model(directory)


@functools.cache
def packed(config_name):
  """The batch, packed."""
  return load(config_name)[0].pack(**reference.batch(PROMPTS))


@functools.cache
def embedded(config_name):
  """For each prompt, [S] ids, [S, D] merged embeddings and [S, 3] positions before pruning."""
  model, params = load(config_name)
  inputs = packed(config_name)
  prompt = inputs.prompt
  encode = jax.jit(lambda params, vision: model.apply({"params": params}, vision, method="encode"))
  features = np.asarray(encode(params, inputs.vision))
  table = reference.weights(reference.CONFIGS[config_name])["model.language_model.embed_tokens.weight"]
  rows = []
  for number, name in enumerate(PROMPTS):
    ids = reference.case(name)["input_ids"][0]
    embeddings, positions = table[ids], np.zeros([len(ids), 3], np.int32)
    text, visual = prompt.text_order[number], prompt.visual_order[number]
    positions[text[text >= 0]] = prompt.text_positions[number, text >= 0]
    positions[visual[visual >= 0]] = prompt.visual_positions[number, visual >= 0]
    embeddings[visual[visual >= 0]] = features[prompt.visual_slots[number, visual >= 0]]
    rows.append((ids, embeddings, positions))
  return rows


def importance(config_name, rows=None):
  """[H], or [rows, H], uneven weights with a zero among them."""
  heads = reference.CONFIGS[config_name]["text_config"]["num_attention_heads"]
  weights = np.random.default_rng(2).dirichlet(np.ones(heads), rows).astype(np.float32)
  weights[..., 1] = 0
  return weights


def expected_positions(config_name, head_importance, normalization, **keep):
  """Prompt positions that METHOD keeps of each prompt."""
  config = reference.CONFIGS[config_name]
  text = config["text_config"]
  tensors = reference.weights(config)
  layer = "model.language_model.layers.0."
  attention = {name.removeprefix(layer + "self_attn."): value for name, value in tensors.items()
               if name.startswith(layer + "self_attn.")}
  head_importance = np.broadcast_to(head_importance, (len(PROMPTS), text["num_attention_heads"]))
  rows = []
  for (ids, embeddings, _), weights, name in zip(embedded(config_name), head_importance, PROMPTS, strict=True):
    normed = numpy_hawk.rms_norm(embeddings, tensors[layer + "input_layernorm.weight"], text["rms_norm_eps"])
    kept, gap = numpy_hawk.prune(
        ids, normed, attention, num_heads=text["num_attention_heads"], num_key_value_heads=text["num_key_value_heads"],
        head_importance=weights, normalization=normalization, visual_ids=(reference.IMAGE, reference.VIDEO),
        vision_end_id=reference.VISION_END, im_end_id=reference.IM_END, **keep)
    if gap < LEAST_SCORE_GAP:
      raise AssertionError(f"{name}: scores at the cut are {gap} apart, choose another importance")
    rows.append(kept)
  return rows


@functools.cache
def whole_sequences(config_name):
  """A jitted function of params, embeddings [B, T, D] and positions [B, T, 3] to logits [B, T, vocab]; no cache."""
  model, _ = load(config_name)
  call = lambda module, x, positions: module.logits(module.language_model.prefill(x, positions)[0])
  return jax.jit(lambda params, x, positions: model.apply({"params": params}, x, positions, method=call))


def recompute(config_name, kept):
  """Greedy tokens [B, NEW_TOKENS] from the kept tokens at their own positions, every step over the whole sequence."""
  _, params = load(config_name)
  rows = embedded(config_name)
  table = reference.weights(reference.CONFIGS[config_name])["model.language_model.embed_tokens.weight"]
  length = max(len(ids) for ids, _, _ in rows) + NEW_TOKENS
  x = np.zeros([len(rows), length, table.shape[1]], np.float32)
  positions = np.zeros([len(rows), length, 3], np.int32)
  ends = np.array([len(row) for row in kept])
  following = np.array([own.max() + 1 for _, _, own in rows])
  for number, (row, (_, embeddings, own)) in enumerate(zip(kept, rows, strict=True)):
    x[number, :len(row)] = embeddings[row]
    positions[number, :len(row)] = own[row]
  tokens = []
  every = np.arange(len(rows))
  for step in range(NEW_TOKENS):
    logits = np.asarray(whole_sequences(config_name)(params, x, positions))[every, ends + step - 1]
    best = np.sort(logits, axis=-1)
    if (best[:, -1] - best[:, -2]).min() < LEAST_LOGIT_LEAD:
      raise AssertionError(f"step {step}: the two best logits are too close, choose another importance")
    tokens.append(logits.argmax(axis=-1))
    x[every, ends + step] = table[tokens[-1]]
    positions[every, ends + step] = (following + step)[:, None]
  return np.stack(tokens, axis=1)


class PruningTest(parameterized.TestCase):

  def check(self, config_name, head_importance, normalization, **keep):
    """Kept positions equal the NumPy version's, tokens those of the recompute."""
    model, params = load(config_name)
    out = models.generate(model, params, packed(config_name), head_importance=head_importance,
                          normalization=normalization, max_new_tokens=NEW_TOKENS, eos_token_ids=(), **keep)
    expected = expected_positions(config_name, head_importance, normalization, **keep)
    kept_positions = np.asarray(out.kept_positions)
    for name, kept, row in zip(PROMPTS, expected, kept_positions, strict=True):
      np.testing.assert_array_equal(row[:len(kept)], kept, err_msg=name)
      np.testing.assert_array_equal(row[len(kept):], -1, err_msg=name)
    np.testing.assert_array_equal(np.asarray(out.tokens), recompute(config_name, expected))

  @parameterized.product(normalization=scoring.NORMALIZATIONS, keep_ratio=RATIOS)
  def test_ratios_and_normalizations(self, normalization, keep_ratio):
    self.check("gqa", importance("gqa"), normalization, keep_ratio=keep_ratio)

  @parameterized.product(config_name=("mha_tied", "mqa"), normalization=("l2",), keep_ratio=(0.198,))
  def test_other_head_ratios(self, config_name, normalization, keep_ratio):
    self.check(config_name, importance(config_name), normalization, keep_ratio=keep_ratio)

  def test_a_count_instead_of_a_ratio(self):
    # Some prompts have more visual tokens than that, some fewer.
    self.check("gqa", importance("gqa"), "l2", keep_count=40)

  def test_importance_of_each_row(self):
    self.check("gqa", importance("gqa", len(PROMPTS)), "l2", keep_ratio=0.198)

  def test_keeping_everything_changes_nothing(self):
    self.check("gqa", importance("gqa"), "l2", keep_ratio=1.0)


if __name__ == "__main__":
  absltest.main()
