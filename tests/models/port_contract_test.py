"""Every registered port through one contract: docs/porting.md in tests."""

from __future__ import annotations

import dataclasses
import functools
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from hawk_jax import selectors
from hawk_jax.buckets import bucket
from hawk_jax.pruning import Plan
from hawk_jax.pruning import Pruning
import models
from models import generation
from models import registry
from models import stages
from models.checkpoints import hf
from models.inputs import packing
from tests.reference import checks
from tests.reference import numpy_hawk
from tests.reference import ports

NEW_TOKENS = 6
SUBJECTS = ports.SUBJECTS
PORTS = [dict(testcase_name=f"_{name}", name=name) for name in registry.PORTS]


def load(name):
  return checks.load(SUBJECTS[name].reference, SUBJECTS[name].config_name)


def shapes(tree):
  return tuple(x.shape for x in jax.tree.leaves(tree))


class PortContractTest(parameterized.TestCase):
  def test_every_port_is_here(self):
    self.assertCountEqual(SUBJECTS, registry.PORTS)

  @parameterized.named_parameters(*PORTS)
  def test_pack(self, name):
    """Shapes are buckets, and every token is in its place once."""
    (model, _), subject = load(name), SUBJECTS[name]
    arrays = subject.reference.batch(subject.prompts)
    inputs = model.pack(**arrays)
    prompt = inputs.prompt
    batch, text, axes = prompt.text_positions.shape
    visual = prompt.visual_order.shape[1]
    self.assertEqual(batch, len(subject.prompts))
    self.assertEqual(axes, model.config.text.position_axes)
    self.assertEqual([text, visual], [bucket(text, 1), bucket(visual, 1)])
    for field in dataclasses.fields(prompt):
      value = getattr(prompt, field.name)
      self.assertIsInstance(value, np.ndarray, msg=field.name)
      self.assertEqual(value.dtype, bool if field.name == "query_mask" else np.int32, msg=field.name)
      expected = [batch] if field.name == "next_position" else [batch, visual if "visual" in field.name else text]
      expected += [axes] if "positions" in field.name else []
      self.assertEqual(list(value.shape), expected, msg=field.name)
    for number, (ids, mask) in enumerate(zip(arrays["input_ids"], arrays["attention_mask"])):
      ids = ids[mask > 0]
      is_visual = np.isin(ids, subject.visual_ids)
      for order, here in ((prompt.text_order[number], ~is_visual), (prompt.visual_order[number], is_visual)):
        np.testing.assert_array_equal(order[: here.sum()], np.flatnonzero(here))
        np.testing.assert_array_equal(order[here.sum() :], -1)
      np.testing.assert_array_equal(prompt.text_tokens[number, : (~is_visual).sum()], ids[~is_visual])
      query = prompt.text_order[number][prompt.query_mask[number]]
      expected = (
        numpy_hawk.query_tokens(ids, subject.visual_ids, subject.vision_end_id, subject.im_end_id) if is_visual.any() else []
      )
      self.assertEqual(query.tolist(), expected)

  @parameterized.named_parameters(*PORTS)
  def test_positions(self, name):
    """They begin at 0, grow from text token to text token, and the answer's follows the largest."""
    (model, _), subject = load(name), SUBJECTS[name]
    prompt = model.pack(**subject.reference.batch(subject.prompts)).prompt
    for number in range(len(subject.prompts)):
      text = prompt.text_positions[number][prompt.text_order[number] >= 0]
      visual = prompt.visual_positions[number][prompt.visual_order[number] >= 0]
      every = np.concatenate([text, visual])
      self.assertEqual(every.min(), 0)
      self.assertTrue((np.diff(text, axis=0) > 0).all())
      np.testing.assert_array_equal(text, np.repeat(text[:, :1], text.shape[1], axis=1))
      self.assertEqual(prompt.next_position[number], every.max() + 1)

  @parameterized.named_parameters(*PORTS)
  def test_row_of_a_batch_equals_itself_alone(self, name):
    (model, params), subject = load(name), SUBJECTS[name]
    together = checks.run(model, params, subject.reference.batch(subject.prompts))
    for prompt, (features, logits) in zip(subject.prompts, together, strict=True):
      ((own_features, own_logits),) = checks.run(model, params, subject.reference.case(prompt))
      checks.close(features, own_features, f"{prompt} features")
      checks.close(logits, own_logits, f"{prompt} logits")

  @parameterized.named_parameters(*PORTS)
  def test_pruned_equals_a_recompute_without_cache(self, name):
    (model, params), subject = load(name), SUBJECTS[name]
    importance = checks.uneven_importance(model.config.text.num_attention_heads)
    checks.check_pruning(
      model, params, subject.reference.batch(subject.prompts), importance, "l2", NEW_TOKENS, subject.query, keep_ratio=0.3
    )

  @parameterized.named_parameters(*PORTS)
  def test_prefill_ends_like_the_whole_forward(self, name):
    """The last layer of a prefill runs on each row's last token alone."""
    (model, params), subject = load(name), SUBJECTS[name]
    inputs = model.pack(**subject.reference.batch(subject.prompts))

    @jax.jit
    def both(params, inputs):
      apply = functools.partial(model.apply, {"params": params})
      prefill = apply(inputs.prompt, apply(inputs.vision, method="encode"), Plan(8), method=stages.prefill)
      return apply(prefill.last, method="logits"), prefill.order, prefill.lengths, apply(inputs, keep_count=8)

    ends, order, lengths, whole = both(params, inputs)
    np.testing.assert_array_equal(order, whole.order)
    checks.close(ends, np.asarray(whole.logits)[np.arange(len(lengths)), np.asarray(lengths) - 1], "last token")

  @parameterized.named_parameters(*PORTS)
  def test_every_selector(self, name):
    (model, params), subject = load(name), SUBJECTS[name]
    inputs = model.pack(**subject.reference.batch(subject.prompts))
    measured = tuple(sorted(model.measures))
    encode = functools.partial(generation.encode, model=model, measures=measured)
    features = jax.eval_shape(encode, params, inputs.vision)
    text, visual = inputs.prompt.text_order.shape[1], inputs.prompt.visual_order.shape
    for selector, rule in selectors.SELECTORS.items():
      if not {*rule.measures} <= {*measured}:
        continue
      settings = Pruning(keep_count=8, selector=selector, prune_layer=1)
      scores = np.zeros(visual, np.float32) if "scores" in rule.needs else None
      plan = generation.make_plan(model, inputs.prompt, settings, scores=scores)
      # The decoder need not be traced for a rule that picks before it.
      method = stages.prefill if rule.stage == "decoder" else "prune"
      order = jax.eval_shape(
        functools.partial(model.apply, method=method), {"params": params}, inputs.prompt, features, plan
      ).order
      self.assertEqual(order.shape, (len(subject.prompts), text + 8), msg=selector)

  @parameterized.named_parameters(*PORTS)
  def test_features(self, name):
    """One row of the decoder's width for every slot the prompt names, and padding takes none of them."""
    (model, params), subject = load(name), SUBJECTS[name]
    inputs = model.pack(**subject.reference.batch(subject.prompts))
    encode = lambda params, vision: model.apply({"params": params}, vision, method="encode")
    rows, width = jax.eval_shape(encode, params, inputs.vision).tokens.shape
    self.assertEqual(width, model.config.text.hidden_size)
    slots = inputs.prompt.visual_slots[inputs.prompt.visual_order >= 0]
    self.assertBetween(slots.min(), 0, rows - 1)
    self.assertBetween(slots.max(), 0, rows - 1)
    self.assertIsNone(model.pack(**subject.reference.case("text_only")).vision)

  @parameterized.named_parameters(*PORTS)
  def test_sizes_compile_once_a_bucket(self, name):
    (model, params), subject = load(name), SUBJECTS[name]
    traced = {"encode": 0, "prefill": 0}

    @jax.jit
    def encode(params, vision):
      traced["encode"] += 1
      return model.apply({"params": params}, vision, method="encode")

    @jax.jit
    def prefill(params, prompt, features):
      traced["prefill"] += 1
      return model.apply({"params": params}, prompt, features, Plan(8), method=stages.prefill).order

    rng = np.random.default_rng(0)
    vision, buckets, prompts, programs = set(), set(), set(), set()
    for height, width in rng.integers(28, 200, [40, 2]).tolist():
      inputs = model.pack(**subject.arrays(height, width))
      features = encode.eval_shape(params, inputs.vision)
      prefill.eval_shape(params, inputs.prompt, features)
      vision.add(shapes(inputs.vision))
      buckets.add(bucket(int(inputs.prompt.visual_counts[0]), packing.VISUAL_MINIMUM))
      prompts.add(shapes(inputs.prompt))
      programs.add(shapes((inputs.prompt, features)))
    self.assertLessEqual(len(vision), subject.vision_buckets)
    self.assertLen(prompts, len(buckets))
    self.assertEqual(traced, {"encode": len(vision), "prefill": len(programs)})

  @parameterized.named_parameters(*PORTS)
  def test_save_and_load(self, name):
    (model, params), subject = load(name), SUBJECTS[name]
    with tempfile.TemporaryDirectory() as directory:
      subject.reference.write_checkpoint(directory, subject.config_name)
      hf.save(directory, model, params)
      again, loaded = models.load_model(directory)
    self.assertEqual(again, model)
    jax.tree.map(np.testing.assert_array_equal, loaded, params)

  @parameterized.named_parameters(*PORTS)
  def test_views_hold_every_visual_token(self, name):
    (model, _), subject = load(name), SUBJECTS[name]
    inputs = model.pack(**subject.reference.batch(subject.prompts))
    counts = [sum(view.count for view in views) for views in inputs.views]
    np.testing.assert_array_equal(counts, inputs.prompt.visual_counts)
    self.assertEmpty(jax.tree.map(lambda x: x, inputs).views)  # on the host only

  @parameterized.named_parameters(*PORTS)
  def test_synthetic_batch(self, name):
    """A batch for measurements has the text and visual tokens that are asked for, and the FLOPs grow with the pictures."""
    (model, _), rng = load(name), np.random.default_rng(0)
    size = model.picture_size(SUBJECTS[name].visual_tokens)
    arrays = model.synthetic_batch([size, size], 14, rng)
    prompt = model.pack(**arrays).prompt
    np.testing.assert_array_equal(prompt.text_counts, [14, 14])
    self.assertEqual(*prompt.visual_counts.tolist())
    one = model.vision_flops(model.synthetic_batch([size], 14))
    self.assertGreater(one, 0)
    self.assertEqual(model.vision_flops(arrays), 2 * one)


if __name__ == "__main__":
  absltest.main()
