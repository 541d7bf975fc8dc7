"""Prompts to measure: joined batches, and how they are pruned."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.speed import cases
from hawk_jax.pruning import Pruning
from tests.reference import checks
from tests.reference import internvl
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl

MODELS = {
  "qwen2_5_vl": (qwen2_5_vl, "gqa"),
  "llava": (llava, "llama"),
  "llava_next": (llava, "next"),
  "llava_onevision": (llava_onevision, "untied"),
  "internvl": (internvl, "qwen2"),
  "qwen3_vl": (qwen3_vl, "gqa"),
}


class CasesTest(parameterized.TestCase):
  @parameterized.parameters(*MODELS)
  def test_joined_batch_holds_the_same_prompts(self, name):
    model, _ = checks.load(*MODELS[name])
    rng = np.random.default_rng(0)
    batches = [model.synthetic_batch([size], 12, rng) for size in ((56, 112), (112, 56), (84, 84))]
    joined = model.pack(**cases.merge(batches)).prompt
    for row, arrays in enumerate(batches):
      prompt = model.pack(**arrays).prompt
      self.assertEqual(joined.visual_counts[row], prompt.visual_counts[0])
      for field in ("text_tokens", "text_order", "visual_order"):
        found, expected = getattr(joined, field)[row], getattr(prompt, field)[0]
        np.testing.assert_array_equal(found[: len(expected)], expected)
      self.assertEqual(joined.next_position[row], prompt.next_position[0])

  def test_case(self):
    model, _ = checks.load(*MODELS["qwen2_5_vl"])
    arrays = model.synthetic_batch([(112, 112), (112, 56)], 12, np.random.default_rng(0))
    whole, pruned = (cases.make(model, arrays, Pruning(keep_ratio=ratio), "case") for ratio in (1.0, 0.4))
    self.assertIsNone(whole.plan)
    self.assertEqual(whole.visual.tolist(), [16, 8])
    self.assertEqual(whole.tokens.tolist(), [28, 20])
    self.assertEqual(pruned.tokens.tolist(), [12 + 7, 12 + 4])
    np.testing.assert_array_equal(pruned.inputs.prompt.text_tokens, model.pack(**arrays).prompt.text_tokens)


if __name__ == "__main__":
  absltest.main()
