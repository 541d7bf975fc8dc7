"""LLaVA-OneVision against transformers' torch model in float32 (recorded by tests/reference/make_goldens.py)."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from tests.reference import checks
from tests.reference import llava_onevision as reference

# One by one, besides in the mixed batch.
ALONE = ("square", "scaled_down_wide", "several", "video", "image_and_video")


def batch(config_name, padding="right"):
  return reference.batch(reference.PARITY_CASES[config_name], padding)


class ParityTest(parameterized.TestCase):
  @parameterized.parameters(*reference.CONFIGS)
  def test_goldens_belong_to_these_weights_and_prompts(self, config_name):
    checks.check_goldens(reference, config_name)

  @parameterized.parameters(*ALONE)
  def test_features_and_logits(self, case):
    checks.check_row(reference, "untied", case, *checks.alone(reference, "untied", case))

  @parameterized.parameters(*reference.CONFIGS)
  def test_mixed_batch(self, config_name):
    rows = checks.run(*checks.load(reference, config_name), batch(config_name))
    for case, row in zip(reference.PARITY_CASES[config_name], rows, strict=True):
      checks.check_row(reference, config_name, case, *row)

  @parameterized.parameters(*reference.CONFIGS)
  def test_greedy_tokens_of_mixed_batch(self, config_name):
    checks.check_tokens(reference, config_name, reference.PARITY_CASES[config_name], batch(config_name))

  def test_padding_on_the_left_packs_the_same(self):
    model, _ = checks.load(reference, "untied")
    right, left = (model.pack(**batch("untied", padding)) for padding in ("right", "left"))
    jax.tree.map(np.testing.assert_array_equal, left, right)


if __name__ == "__main__":
  absltest.main()
