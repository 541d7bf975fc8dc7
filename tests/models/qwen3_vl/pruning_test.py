"""Pruning of Qwen3-VL against docs/method.md in NumPy, and the compacted cache against no cache at all."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from hawk_jax import scoring
import models
from models import generation
from models import stages
from tests.reference import checks
from tests.reference import qwen3_vl as reference

# Several pictures, a video and pictures, no picture, no im_end, and no text after the video.
PROMPTS = ("two_images", "text_only", "images_and_video", "no_end", "no_instruction", "wide_4x20")
NEW_TOKENS = 8
TOKENS = dict(visual_ids=(reference.IMAGE, reference.VIDEO), vision_end_id=reference.VISION_END, im_end_id=reference.IM_END)


class PruningTest(parameterized.TestCase):
  def check(self, config_name, normalization, **keep):
    model, params = checks.load(reference, config_name)
    importance = checks.uneven_importance(model.config.text.num_attention_heads)
    checks.check_pruning(model, params, reference.batch(PROMPTS), importance, normalization, NEW_TOKENS, TOKENS, **keep)

  @parameterized.product(normalization=scoring.NORMALIZATIONS, keep_ratio=(0.4, 0.2, 0.1))
  def test_ratios_and_normalizations(self, normalization, keep_ratio):
    self.check("gqa", normalization, keep_ratio=keep_ratio)

  def test_as_many_levels_as_layers(self):
    self.check("tied", "l2", keep_ratio=0.2)

  def test_keeping_everything_changes_nothing(self):
    self.check("gqa", "l2", keep_ratio=1.0)


class RankingTest(absltest.TestCase):
  def test_scores_need_the_norms(self):
    """Without the norms of queries and keys, other tokens would be kept."""
    model, params = checks.load(reference, "gqa")
    inputs = model.pack(**reference.case("wide_4x20"))
    features = generation.encode_pictures(model, params, inputs)

    def scores(module, prompt, features, normed):
      projections = module.projections()
      if not normed:
        projections = projections.replace(query_norm=None, key_norm=None)
      text, visual = module._embed(prompt.text_tokens), module._gather(prompt, features)
      raw = scoring.head_scores(projections, text, visual, prompt.query_mask)
      return scoring.fuse(scoring.normalize(raw, prompt.visual_mask))[0]

    ranked = lambda normed: np.argsort(
      -np.asarray(model.apply({"params": params}, inputs.prompt, features, normed, method=scores))[:20]
    )
    self.assertNotEqual(ranked(True)[:4].tolist(), ranked(False)[:4].tolist())


class PlacesTest(absltest.TestCase):
  def test_tokens_that_show_the_same_place(self):
    """Those of a video's two slices of 6 tokens, for the selector evs; those of pictures are all different."""
    model, _ = checks.load(reference, "gqa")
    prompt = model.pack(**reference.case("images_and_video")).prompt
    places = prompt.visual_places[0, : prompt.visual_counts[0]]
    np.testing.assert_array_equal(places[10:16], places[16:22])
    self.assertLen({*places.tolist()}, len(places) - 6)


class SelectorsTest(parameterized.TestCase):
  @parameterized.parameters("random", "divprune", "hawk+dpp", "qaprune", "evs")
  def test_levels_follow_the_tokens_kept(self, selector):
    """Whatever a selector keeps, the answer is that of a recompute."""
    model, params = checks.load(reference, "gqa")
    arrays = reference.batch(("images_and_video", "wide_4x20"))
    out = models.generate(
      model, params, model.pack(**arrays), selector=selector, keep_ratio=0.4, max_new_tokens=2, eos_token_ids=()
    )
    kept = [row[row >= 0].tolist() for row in np.asarray(out.kept_positions)]
    rows = checks.merged(model, params, arrays)
    np.testing.assert_array_equal(np.asarray(out.tokens), checks.recompute(model, params, rows, kept, 2))


class DeepStackTest(parameterized.TestCase):
  def test_without_it_the_answer_is_another(self):
    model, params = checks.load(reference, "gqa")
    inputs = model.pack(**reference.case("wide_4x20"))
    features = generation.encode_pictures(model, params, inputs)
    plan = generation.make_plan(model, inputs.prompt, models.generation.Pruning(keep_ratio=0.4))

    def ends(features):
      prefill = model.apply({"params": params}, inputs.prompt, features, plan, method=stages.prefill)
      return np.asarray(model.apply({"params": params}, prefill.last, method="logits"))

    zeroed = features.replace(levels=tuple(0 * level for level in features.levels))
    self.assertGreater(np.abs(ends(features) - ends(zeroed)).max(), 0.1)
    self.assertLen(features.levels, 2)
    np.testing.assert_array_equal(ends(zeroed), ends(dataclasses.replace(features, levels=())))


if __name__ == "__main__":
  absltest.main()
