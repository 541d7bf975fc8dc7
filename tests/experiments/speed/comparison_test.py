"""What the check of outputs says about tokens that differ."""

import types
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.speed import comparison

STEPS = 2


class CheckOutputsTest(absltest.TestCase):
  def check(self, tokens, dtype):
    """Of a baseline with our logits and these tokens, where ours are 1, 2 and 0."""
    logits = np.asarray([[[0.0, 4.0, 1.0], [0.0, 3.9, 4.0], [-5.0, -6.0, -8.0]]], np.float32)
    programs = mock.Mock(case=types.SimpleNamespace(name="1"))
    programs.kept.return_value = np.arange(3)
    programs.language.return_value = (logits[:, 0],)
    programs.answer.return_value = types.SimpleNamespace(tokens=[[1, 2, 0]], logits=logits)
    baseline = mock.Mock(spec=comparison.Baseline)
    baseline.answer.return_value = (logits[:, 0], [tokens])
    [found] = comparison.check_outputs([programs], "other", baseline, {}, STEPS, [dtype])
    return found["equal_tokens"], found["gap"]

  def test_gap_is_at_the_first_token_that_differs(self):
    self.assertEqual(self.check([1, 2, 0], "float32"), (3, None))
    same, gap = self.check([1, 1, 1], "bfloat16")
    self.assertEqual(same, 1)
    self.assertAlmostEqual(gap, 0.1 / 4, places=5)
    same, gap = self.check([1, 2, 2], "bfloat16")
    self.assertEqual(same, 2)
    self.assertAlmostEqual(gap, 3 / 8, places=5)

  def test_tokens_in_float32_must_be_equal(self):
    with self.assertRaisesRegex(ValueError, "baseline: outputs differ at 1: .*'equal_tokens': 1"):
      self.check([1, 1, 1], "float32")


if __name__ == "__main__":
  absltest.main()
