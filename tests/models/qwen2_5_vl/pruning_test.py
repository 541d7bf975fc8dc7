"""Pruning of Qwen2.5-VL against docs/method.md in NumPy, and the compacted cache against no cache at all."""

import functools
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from hawk_jax import scoring
import models
from tests.reference import checks
from tests.reference import qwen2_5_vl as reference

# Several pictures, a video and pictures, no picture, no im_end, and no text after the picture.
PROMPTS = ("two_images", "text_only", "image_and_video", "no_end", "three_images", "no_instruction", "ragged_6x50")
RATIOS = (0.4, 0.198, 0.1)
NEW_TOKENS = 12
TOKENS = dict(visual_ids=(reference.IMAGE, reference.VIDEO), vision_end_id=reference.VISION_END, im_end_id=reference.IM_END)


@functools.cache
def load(config_name):
  """Model and parameters, by way of a checkpoint on disk."""
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name)
    return models.load_model(directory)


class PruningTest(parameterized.TestCase):
  def check(self, config_name, normalization, importance_rows=None, **keep):
    """Kept positions equal the NumPy version's, tokens those of the recompute."""
    model, params = load(config_name)
    importance = checks.uneven_importance(model.config.text.num_attention_heads, importance_rows)
    checks.check_pruning(model, params, reference.batch(PROMPTS), importance, normalization, NEW_TOKENS, TOKENS, **keep)

  @parameterized.product(normalization=scoring.NORMALIZATIONS, keep_ratio=RATIOS)
  def test_ratios_and_normalizations(self, normalization, keep_ratio):
    self.check("gqa", normalization, keep_ratio=keep_ratio)

  @parameterized.parameters("mha_tied", "mqa")
  def test_other_head_ratios(self, config_name):
    self.check(config_name, "l2", keep_ratio=0.198)

  def test_a_count_instead_of_a_ratio(self):
    # Some prompts have more visual tokens than that, some fewer.
    self.check("gqa", "l2", keep_count=40)

  def test_importance_of_each_row(self):
    self.check("gqa", "l2", importance_rows=len(PROMPTS), keep_ratio=0.198)

  def test_keeping_everything_changes_nothing(self):
    self.check("gqa", "l2", keep_ratio=1.0)


if __name__ == "__main__":
  absltest.main()
