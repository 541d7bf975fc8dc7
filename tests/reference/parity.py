"""The parity tests of ports whose goldens come from one model of transformers."""

from __future__ import annotations

from collections.abc import Sequence

from absl.testing import parameterized
import jax
import numpy as np

from tests.reference import checks


def make_test(
  reference, alone: Sequence[tuple[str, str]] = (), answered: Sequence[tuple[str, str]] = (), packed: Sequence[str] = ()
) -> type[parameterized.TestCase]:
  """A test case that compares features, logits and greedy tokens with the goldens.

  Args:
    reference: module with configs, prompts and weights.
    alone: configs and prompts whose features and logits are also compared one by one, besides in the mixed batch.
    answered: configs and prompts whose greedy tokens are also compared one by one.
    packed: configs whose batches are packed with padding on either side.
  """
  batch = lambda config_name, padding="right": reference.batch(reference.PARITY_CASES[config_name], padding)

  def over(cases):
    """The decorator of a test of several cases; without cases there is no test."""
    return parameterized.parameters(*cases) if cases else lambda test: None

  configs = [(config_name,) for config_name in reference.CONFIGS]

  class ParityTest(parameterized.TestCase):
    @over(configs)
    def test_goldens_belong_to_these_weights_and_prompts(self, config_name):
      checks.check_goldens(reference, config_name)

    @over(alone)
    def test_features_and_logits(self, config_name, case):
      checks.check_row(reference, config_name, case, *checks.alone(reference, config_name, case))

    @over(configs)
    def test_mixed_batch(self, config_name):
      rows = checks.run(*checks.load(reference, config_name), batch(config_name))
      for case, row in zip(reference.PARITY_CASES[config_name], rows, strict=True):
        checks.check_row(reference, config_name, case, *row)

    @over(configs)
    def test_greedy_tokens_of_mixed_batch(self, config_name):
      checks.check_tokens(reference, config_name, reference.PARITY_CASES[config_name], batch(config_name))

    @over(answered)
    def test_greedy_tokens_alone(self, config_name, case):
      checks.check_tokens(reference, config_name, [case], reference.case(case))

    @over([(config_name,) for config_name in packed])
    def test_padding_on_the_left_packs_the_same(self, config_name):
      model, _ = checks.load(reference, config_name)
      right, left = (model.pack(**batch(config_name, padding)) for padding in ("right", "left"))
      jax.tree.map(np.testing.assert_array_equal, left, right)

  return ParityTest
