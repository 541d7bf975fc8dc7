"""Pruning of InternVL against docs/method.md in NumPy, and the compacted cache against no cache at all."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from models import generate
from tests.reference import checks
from tests.reference import internvl as reference

NEW_TOKENS = 8
QUERY = dict(visual_ids=(reference.IMAGE,), vision_end_id=reference.END, im_end_id=reference.IM_END)
PROMPTS = ("two_pictures", "text_only", "picture_and_video", "no_instruction")


class PruningTest(parameterized.TestCase):
  def check(self, config_name, normalization="l2", **keep):
    model, params = checks.load(reference, config_name)
    importance = checks.uneven_importance(model.config.text.num_attention_heads)
    checks.check_pruning(model, params, reference.batch(PROMPTS), importance, normalization, NEW_TOKENS, QUERY, **keep)

  @parameterized.product(config_name=("qwen2", "qwen3"), keep_ratio=(0.4, 0.2, 0.1))
  def test_ratios(self, config_name, keep_ratio):
    self.check(config_name, keep_ratio=keep_ratio)

  @parameterized.product(config_name=("qwen2", "qwen3"), normalization=("softmax", "minmax", "none"))
  def test_normalizations(self, config_name, normalization):
    self.check(config_name, normalization, keep_ratio=0.2)

  def test_keeping_all_changes_nothing(self):
    model, params = checks.load(reference, "qwen3")
    inputs = model.pack(**reference.batch(PROMPTS))
    every, none = (generate(model, params, inputs, max_new_tokens=NEW_TOKENS, **keep) for keep in (dict(keep_ratio=1.0), {}))
    np.testing.assert_array_equal(every.tokens, none.tokens)
    np.testing.assert_array_equal(every.kept_positions, none.kept_positions)


if __name__ == "__main__":
  absltest.main()
