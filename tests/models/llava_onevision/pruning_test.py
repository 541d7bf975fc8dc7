"""Pruning of LLaVA-OneVision against docs/method.md in NumPy, and the compacted cache against no cache at all."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

import models
from tests.reference import checks
from tests.reference import llava_onevision as reference

NEW_TOKENS = 12
# Tiles with and without scaling, several pictures, videos, no picture, and no text after the picture.
PROMPTS = {
  "untied": ("several", "scaled_down_wide", "text_only", "image_and_video", "wide", "no_instruction"),
  "tied": ("square", "two_videos"),
}


class PruningTest(parameterized.TestCase):
  def check(self, config_name, normalization="l2", **keep):
    model, params = checks.load(reference, config_name)
    checks.check_pruning(
      model,
      params,
      reference.batch(PROMPTS[config_name]),
      checks.uneven_importance(model.config.text.num_attention_heads),
      normalization,
      NEW_TOKENS,
      dict(visual_ids=(reference.IMAGE, reference.VIDEO), im_end_id=reference.IM_END),
      **keep,
    )

  @parameterized.parameters(0.4, 0.2, 0.1)
  def test_ratios(self, keep_ratio):
    self.check("untied", keep_ratio=keep_ratio)

  @parameterized.parameters("softmax", "minmax", "none")
  def test_normalizations(self, normalization):
    self.check("untied", normalization, keep_ratio=0.2)

  def test_tied(self):
    self.check("tied", keep_ratio=0.2)

  def test_newlines_are_pruned_like_other_tokens(self):
    """All newlines of a picture have the same score: some heads keep them, others do not."""
    model, params = checks.load(reference, "untied")
    heads = model.config.text.num_attention_heads
    inputs = model.pack(**reference.batch(["scaled_down"] * heads))
    importance = np.eye(heads, dtype=np.float32)
    out = models.generate(
      model, params, inputs, head_importance=importance, keep_ratio=0.5, max_new_tokens=1, eos_token_ids=()
    )
    # 25 tokens of the whole picture, then 7 rows of 7 and a newline.
    newlines = inputs.prompt.visual_order[:, 25 + 7 : 81 : 8]
    kept = np.array([np.isin(*row).sum() for row in zip(newlines, np.asarray(out.kept_positions))])
    self.assertContainsSubset({0, 7}, kept.tolist())


if __name__ == "__main__":
  absltest.main()
