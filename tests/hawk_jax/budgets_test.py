"""Adaptive budgets against a plain reading, and their calibration."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import budgets


def plain(scores, keep_mass):
  scores = scores.astype(np.float64)
  weights = np.exp((scores - scores.mean()) / scores.std())
  shares = np.sort(weights / weights.sum())[::-1]
  held = 0.0
  for number, share in enumerate(shares, 1):
    held += share
    if held >= keep_mass - 1e-9:
      return number
  return len(shares)


class BudgetsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.scores = rng.standard_normal([30, 50]).astype(np.float32) * rng.uniform(1e-3, 1e3, [30, 1]).astype(np.float32)
    self.scores[10:, 0] *= 40  # some rows are concentrated
    self.mask = rng.random([30, 50]) < rng.uniform(0.2, 1.0, [30, 1])
    self.mask[3] = False

  @parameterized.parameters(0.01, 0.3, 0.5, 0.9, 1.0)
  def test_equals_plain_reading(self, keep_mass):
    counts = np.asarray(jax.jit(budgets.mass_counts)(jnp.asarray(self.scores), jnp.asarray(self.mask), keep_mass))
    for row in range(30):
      expected = plain(self.scores[row, self.mask[row]], keep_mass) if self.mask[row].any() else 0
      self.assertEqual(counts[row], expected)

  def test_padding_has_no_part(self):
    counts = budgets.mass_counts(jnp.asarray(self.scores), jnp.asarray(self.mask), 0.5)
    noise = budgets.mass_counts(jnp.asarray(np.where(self.mask, self.scores, 1e9)), jnp.asarray(self.mask), 0.5)
    np.testing.assert_array_equal(counts, noise)

  @parameterized.parameters(0.1, 0.2, 0.5)
  def test_calibration_meets_the_mean(self, keep_ratio):
    tau = budgets.calibrate(self.scores, self.mask, keep_ratio)
    counts = np.asarray(budgets.mass_counts(jnp.asarray(self.scores), jnp.asarray(self.mask), tau))
    rows = self.mask.any(axis=1)
    share = np.mean(counts[rows] / self.mask.sum(axis=1)[rows])
    self.assertGreaterEqual(share, keep_ratio)
    self.assertLess(share, keep_ratio + 0.02)
    self.assertGreater(len(set(counts[rows].tolist())), 3)  # samples differ

  def test_bad_input(self):
    with self.assertRaisesRegex(ValueError, "keep_ratio: got 0"):
      budgets.calibrate(self.scores, self.mask, 0.0)
    with self.assertRaisesRegex(ValueError, "visual_mask: no sample"):
      budgets.calibrate(self.scores, np.zeros_like(self.mask), 0.5)


if __name__ == "__main__":
  absltest.main()
