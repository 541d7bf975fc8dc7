"""LLaVA-1.5 and LLaVA-NeXT against transformers' torch models in float32 (recorded by tests/reference/make_goldens.py)."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from tests.reference import checks
from tests.reference import llava as reference

# One by one, besides in the mixed batch.
ALONE = [
  dict(testcase_name=f"_{config_name}_{case}", config_name=config_name, case=case)
  for config_name in ("llama", "full", "next")
  for case in reference.PARITY_CASES[config_name]
]


def batch(config_name, padding="right"):
  return reference.batch(reference.PARITY_CASES[config_name], padding)


class ParityTest(parameterized.TestCase):
  @parameterized.parameters(*reference.CONFIGS)
  def test_goldens_belong_to_these_weights_and_prompts(self, config_name):
    checks.check_goldens(reference, config_name)

  @parameterized.named_parameters(*ALONE)
  def test_features_and_logits(self, config_name, case):
    checks.check_row(reference, config_name, case, *checks.alone(reference, config_name, case))

  @parameterized.parameters(*reference.CONFIGS)
  def test_mixed_batch(self, config_name):
    rows = checks.run(*checks.load(reference, config_name), batch(config_name))
    for case, row in zip(reference.PARITY_CASES[config_name], rows, strict=True):
      checks.check_row(reference, config_name, case, *row)

  @parameterized.parameters(*reference.CONFIGS)
  def test_greedy_tokens_of_mixed_batch(self, config_name):
    checks.check_tokens(reference, config_name, reference.PARITY_CASES[config_name], batch(config_name))

  @parameterized.parameters("one", "two")
  def test_greedy_tokens_alone(self, case):
    checks.check_tokens(reference, "llama", [case], reference.case(case))

  @parameterized.parameters("llama", "next")
  def test_padding_on_the_left_packs_the_same(self, config_name):
    model, _ = checks.load(reference, config_name)
    right, left = (model.pack(**batch(config_name, padding)) for padding in ("right", "left"))
    jax.tree.map(np.testing.assert_array_equal, left, right)


if __name__ == "__main__":
  absltest.main()
