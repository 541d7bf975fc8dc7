"""Which settings an evaluation compares, and how questions are batched."""

from absl.testing import absltest
from absl.testing import parameterized

from experiments.evaluation import plan
from hawk_jax import Pruning
from models import registry
from tests.reference.tsv_files import fake_table


class PlanTest(parameterized.TestCase):
  def test_batches_hold_similar_sizes_and_every_row_once(self):
    table = fake_table([((w, w),) for w in (100, 500, 100, 500, 100)] + [(), ((100, 100), (100, 100))])
    batches = plan.batches([table, table], 2, None, None)
    self.assertEqual([batch.rows for batch in batches[:3]], [(0, 2), (4, 6), (1, 3)])
    self.assertEqual([batch.number for batch in batches], list(range(6)))
    self.assertEqual([batch.table for batch in batches], [0] * 3 + [1] * 3)

  def test_limits_on_pixels_make_sizes_equal(self):
    table = fake_table([((w, w),) for w in (100, 2000, 300)])
    self.assertEqual(plan.batches([table], 3, 1008**2, 1008**2)[0].rows, (0, 1, 2))

  def test_settings(self):
    self.assertEqual(
      plan.settings(["hawk", "random"], [0.2, 0.5], normalization="softmax"),
      (
        plan.Setting(Pruning(normalization="softmax")),
        *(
          plan.Setting(Pruning(keep_ratio=ratio, selector=selector, normalization="softmax"))
          for ratio in (0.5, 0.2)
          for selector in ("hawk", "random")
        ),
      ),
    )
    self.assertEqual([plan.name(setting) for setting in plan.settings(["hawk"], [0.198])], ["all tokens", "hawk 0.198"])

  def test_rules_are_crossed_with_what_changes_them(self):
    importances = {"": "importance", "mine": "importance", "mass": "mass"}
    found = plan.settings(["hawk", "random", "pool"], [0.2], importances=importances, merges=["none", "nearest"])
    rows = ["hawk", "hawk, merged", "hawk, mine", "hawk, mine, merged", "hawk, mass", "hawk, mass, merged"]
    rows += ["random", "random, merged", "pool"]  # weights have no influence on these, and pool merges by itself
    self.assertEqual([setting.selector for setting in found[1:]], rows)
    self.assertEqual([plan.name(setting) for setting in found[:2]], ["all tokens", "hawk 0.2"])
    self.assertEqual([setting.importance for setting in found[3:6]], ["mine", "mine", "mass"])
    self.assertEqual([setting.pruning.head_weights for setting in found[3:6]], ["importance", "importance", "mass"])

  def test_stages_are_rows_too(self):
    text = "input:0.5, decoder@2:0.1"
    found = plan.settings(["hawk", "fastv"], [0.2], stages=[text])
    self.assertEqual([plan.name(setting) for setting in found], ["all tokens", "hawk 0.2", "fastv 0.2", f"hawk, {text} 0.5"])
    model = registry.published("qwen2.5-vl-7b")
    resolved = plan.resolve(found[-1], model)
    self.assertEqual(resolved.pruning.stages, "input:0.5, decoder@2:0.1/text")
    self.assertAlmostEqual(resolved.keep_ratio, (2 * 0.5 + 26 * 0.1) / 28, places=6)
    self.assertEqual(plan.resolve(found[1], model), found[1])

  @parameterized.parameters(
    (["hawk", "hawk"], [0.5], "selector: .*twice"),
    (["hawk"], [0.5, 0.5], "keep_ratio: .*twice"),
    (["hawk"], [1.0], "keep_ratio: got 1.0, must be between 0 and 1"),
    (["hawk"], [0.0], "keep_ratio: got 0.0"),
  )
  def test_settings_refused(self, selectors, ratios, message):
    with self.assertRaisesRegex(ValueError, message):
      plan.settings(selectors, ratios)


if __name__ == "__main__":
  absltest.main()
