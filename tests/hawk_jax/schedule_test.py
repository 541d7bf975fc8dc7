"""Schedules: reading and writing them, what they cost, and every way to get one wrong."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from hawk_jax import pruning
from hawk_jax import schedule
from hawk_jax.prompt import Prompt


def make_prompt():
  """What a plan reads of prompts with 16, 11 and 6 visual tokens."""
  order = np.where(np.arange(16) < np.asarray([[16], [11], [6]]), np.arange(16), -1)
  fields = {field.name: None for field in dataclasses.fields(Prompt)}
  return Prompt(**fields | dict(text_tokens=np.ones([3, 5], np.int32), visual_order=order))


class ScheduleTest(parameterized.TestCase):
  @parameterized.parameters(
    "tower@8:0.5/lens/restore, input:0.3, decoder@12:0.15/text, decoder@16:0.05",
    "tower:0.5/change",
    "decoder@3:1.0",
    "input:0.123456789",
  )
  def test_reads_what_it_writes(self, text):
    self.assertEqual(str(schedule.parse(text)), text)

  def test_parts(self):
    found = schedule.parse("  tower@8:.5/restore , input:0.3,decoder@12:0.15/last ")
    self.assertEqual(found.tower, schedule.Stage("tower", 0.5, 8, None, True))
    self.assertEqual(found.input, schedule.Stage("input", 0.3))
    self.assertEqual(found.decoder, (schedule.Stage("decoder", 0.15, 12, "last"),))

  def test_presets_leave_a_fifth_of_the_tokens(self):
    for name, text in schedule.PRESETS.items():
      found = schedule.parse(name)
      self.assertEqual(found, schedule.parse(text))
      [stage] = found.decoder
      halfway = dataclasses.replace(found, decoder=(dataclasses.replace(stage, layer=6),))
      self.assertAlmostEqual(halfway.mean_share(12), 0.2)

  def test_mean_shares(self):
    found = schedule.parse("tower@8:0.5, input:0.3, decoder@12:0.1, decoder@16:0.05")
    self.assertAlmostEqual(found.mean_share(20), (12 * 0.3 + 4 * 0.1 + 4 * 0.05) / 20)
    self.assertAlmostEqual(found.tower_share(32), (8 + 24 * 0.5) / 32)
    self.assertIn("mean: 0.21 of all; per tower block: 0.625", found.describe(32, 20))
    self.assertEqual(schedule.parse("tower@1:0.5").entering, 0.5)
    self.assertEqual(schedule.parse("tower@1:0.5/restore").entering, 1.0)

  @parameterized.parameters(
    ("", "must be like tower@8:0.5"),
    ("tower", "got 'tower' in 'tower'"),
    ("input:0.5,", "got ''"),
    ("middle@2:0.5", "with a PLACE of tower, input, decoder"),
    ("input:0", r"share of 'input:0' must be a number in \(0, 1\]"),
    ("input:1.5", "must be a number in"),
    ("input:nan", "must be a number in"),
    ("input:much", "must be a number in"),
    ("input@2:0.5", "the input has no layer"),
    ("input:0.5/lens", "at the input nothing"),
    ("decoder@0:0.5", "whole number of at least 1"),
    ("decoder@-1:0.5", "whole number of at least 1"),
    ("decoder@x:0.5", "whole number of at least 1"),
    ("decoder@2:0.5/restore", "only the tower can restore"),
    ("tower@2:0.5/lens/change", "there may be one score"),
    ("tower@2:0.5/", "there may be one score"),
    ("tower@2:0.5, tower@4:0.3", "has 2 stages at tower"),
    ("input:0.5, tower@4:0.3", "in the order in which they run"),
    ("decoder@4:0.5, decoder@4:0.3", r"are \[4, 4\], they must ascend"),
    ("decoder:0.5, decoder@4:0.3", "need a layer each"),
    ("tower@2:0.2, input:0.3", "input:0.3 keeps more than tower@2:0.2 leaves"),
    ("input:0.2, decoder@2:0.3", "keeps more"),
  )
  def test_bad_schedules(self, text, message):
    with self.assertRaisesRegex(ValueError, message):
      schedule.parse(text)


class PruningTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(stages="input:0.5", keep_ratio=0.2), "give no keep_ratio or keep_count beside it"),
    (dict(stages="decoder@1:0.5", selector="fastv"), "fastv or score_layer removes tokens in the decoder itself"),
    (dict(stages="decoder@1:0.5", score_layer=1), "give one of them"),
    (dict(stages="tower@1:0.5", selector="visionzip"), "visionzip measures whole pictures"),
    (dict(stages="tower@1"), "must be like tower"),
  )
  def test_bad_settings(self, settings, message):
    with self.assertRaisesRegex(ValueError, message):
      pruning.Pruning(**settings)

  def test_plan(self):
    prompt = make_prompt()
    visual = np.asarray(prompt.visual_counts)
    plan = pruning.Pruning(stages="input:0.5, decoder@2:0.25/last, decoder@3:0.01/text").plan(prompt, 2)
    np.testing.assert_array_equal(plan.counts, -(-visual // 2))
    self.assertEqual([(cut.layer, cut.score) for cut in plan.cuts], [(2, "last"), (3, "text")])
    np.testing.assert_array_equal(plan.cuts[0].counts, -(-visual // 4))
    np.testing.assert_array_equal(plan.cuts[1].counts, 1)
    # The same program for another share under the same bucket.
    other = pruning.Pruning(stages="input:0.5, decoder@2:0.2/last, decoder@3:0.01/text").plan(prompt, 2)
    static = lambda plan: (plan.keep_count, plan.pruning, [(cut.layer, cut.score, cut.keep_count) for cut in plan.cuts])
    self.assertEqual(static(plan), static(other))

  def test_a_share_at_the_input_is_a_keep_ratio(self):
    prompt = make_prompt()
    plans = [pruning.Pruning(**settings).plan(prompt, 2) for settings in (dict(stages="input:0.3"), dict(keep_ratio=0.3))]
    np.testing.assert_array_equal(plans[0].counts, plans[1].counts)
    self.assertEqual(plans[0].pruning, plans[1].pruning)
    self.assertEqual(plans[0].keep_count, plans[1].keep_count)

  def test_a_tower_limits_the_input(self):
    prompt = make_prompt()
    visual = np.asarray(prompt.visual_counts)
    plan = pruning.Pruning(stages="tower@1:0.5").plan(prompt, 2, limits=visual // 2)
    np.testing.assert_array_equal(plan.counts, visual // 2)
    self.assertIsNone(pruning.Pruning(stages="tower@1:0.5/restore").plan(prompt, 2))
    self.assertTrue(pruning.Pruning(stages="decoder@1:0.5/text").plan(prompt, 2).keeps_all_at_input)


if __name__ == "__main__":
  absltest.main()
