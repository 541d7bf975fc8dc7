"""InternVL3 and InternVL3.5 against transformers' torch models in float32 (recorded by tests/reference/make_goldens.py)."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from tests.reference import checks
from tests.reference import internvl as reference


def batch(config_name, padding="right"):
  return reference.batch(reference.PARITY_CASES[config_name], padding)


class ParityTest(parameterized.TestCase):
  @parameterized.parameters(*reference.CONFIGS)
  def test_goldens_belong_to_these_weights_and_prompts(self, config_name):
    checks.check_goldens(reference, config_name)

  # One by one, besides in the mixed batch.
  @parameterized.parameters(*reference.PARITY_CASES["qwen2"])
  def test_features_and_logits(self, case):
    checks.check_row(reference, "qwen2", case, *checks.alone(reference, "qwen2", case))

  @parameterized.parameters(*reference.CONFIGS)
  def test_mixed_batch(self, config_name):
    rows = checks.run(*checks.load(reference, config_name), batch(config_name))
    for case, row in zip(reference.PARITY_CASES[config_name], rows, strict=True):
      checks.check_row(reference, config_name, case, *row)

  @parameterized.parameters(*reference.CONFIGS)
  def test_greedy_tokens_of_mixed_batch(self, config_name):
    checks.check_tokens(reference, config_name, reference.PARITY_CASES[config_name], batch(config_name))

  @parameterized.parameters("qwen2", "qwen3")
  def test_greedy_tokens_alone(self, config_name):
    checks.check_tokens(reference, config_name, ["one_tile"], reference.case("one_tile"))

  def test_padding_on_the_left_packs_the_same(self):
    model, _ = checks.load(reference, "qwen2")
    right, left = (model.pack(**batch("qwen2", padding)) for padding in ("right", "left"))
    jax.tree.map(np.testing.assert_array_equal, left, right)


if __name__ == "__main__":
  absltest.main()
