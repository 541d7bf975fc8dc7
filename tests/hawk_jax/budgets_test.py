"""Fixed budgets, adaptive budgets against a plain reading, and their calibration."""

import math

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


class KeepCountsTest(parameterized.TestCase):
  @parameterized.parameters(0.4, 0.198, 0.1, 0.07, 1 / 3, 1.0)
  def test_ceil_is_the_authors_formula(self, keep_ratio):
    visual = np.arange(1, 2881)
    expected = [min(v, max(1, math.ceil(v * keep_ratio))) for v in visual.tolist()]
    np.testing.assert_array_equal(budgets.keep_counts(visual, keep_ratio=keep_ratio), expected)

  @parameterized.parameters((576, 0.198, 115, 114), (10, 0.5, 5, 5), (3, 0.01, 1, 1), (1, 1.0, 1, 1), (0, 0.5, 0, 0))
  def test_rounding(self, visual, keep_ratio, ceil, floor):
    self.assertEqual(budgets.keep_counts([visual], keep_ratio=keep_ratio), [ceil])
    self.assertEqual(budgets.keep_counts([visual], keep_ratio=keep_ratio, rounding="ceil"), [ceil])
    self.assertEqual(budgets.keep_counts([visual], keep_ratio=keep_ratio, rounding="floor"), [floor])

  def test_rows_are_counted_apart(self):
    counts = budgets.keep_counts(np.array([64, 0, 1, 9]), keep_ratio=0.25)
    np.testing.assert_array_equal(counts, [16, 0, 1, 3])
    self.assertEqual(counts.dtype, np.int32)

  def test_keep_count_is_bounded_by_what_is_there(self):
    np.testing.assert_array_equal(budgets.keep_counts([64, 0, 3], keep_count=8), [8, 0, 3])
    np.testing.assert_array_equal(budgets.keep_counts([64, 0, 3], keep_count=10**12), [64, 0, 3])

  def test_neither_keeps_all(self):
    np.testing.assert_array_equal(budgets.keep_counts([64, 0, 3]), [64, 0, 3])

  @parameterized.parameters(0.0, -0.1, 1.0001, math.nan, math.inf)
  def test_ratio_outside_its_range(self, keep_ratio):
    with self.assertRaisesRegex(ValueError, rf"keep_ratio: got {keep_ratio}, must be in \(0, 1\]"):
      budgets.keep_counts([4], keep_ratio=keep_ratio)

  @parameterized.parameters(0, -3, 1.5, True)
  def test_count_outside_its_range(self, keep_count):
    with self.assertRaisesRegex(ValueError, f"keep_count: got {keep_count}, must be a whole number of at least 1"):
      budgets.keep_counts([4], keep_count=keep_count)

  def test_both(self):
    with self.assertRaisesRegex(ValueError, "give one of them, got keep_ratio=0.5 and keep_count=3"):
      budgets.keep_counts([4], keep_ratio=0.5, keep_count=3)

  @parameterized.parameters(
    ([math.nan, 10.0, 0.0], r"got float64 of shape \(3,\), must be whole numbers \[batch\]"),
    ([1j], r"got complex128 of shape \(1,\)"),
    ([True], r"got bool of shape \(1,\)"),
    ([[1], [2, 3]], "got .*, must be whole numbers"),
    (5, r"got int64 of shape \(\)"),
    ([2**31], "from 2147483648 to 2147483648, must be from 0 to 2147483647"),
    ([2**62], "from 4611686018427387904"),
    ([2**70], r"got object of shape \(1,\)"),
    ([3, -1], "from -1 to 3, must be from 0"),
  )
  def test_visual_counts_that_are_refused(self, counts, message):
    with self.assertRaisesRegex(ValueError, f"visual_counts: {message}"):
      budgets.keep_counts(counts, keep_ratio=0.3)

  def test_unknown_rounding(self):
    with self.assertRaisesRegex(ValueError, "rounding: got 'nearest', allowed are ceil, floor"):
      budgets.keep_counts([4], keep_ratio=0.5, rounding="nearest")


class MassCountsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.scores = rng.standard_normal([30, 50]).astype(np.float32) * rng.uniform(1e-3, 1e3, [30, 1]).astype(np.float32)
    self.scores[10:, 0] *= 40  # the scores of some rows are concentrated
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
    self.assertGreater(len(set(counts[rows].tolist())), 3)  # prompts differ

  def test_bad_input(self):
    with self.assertRaisesRegex(ValueError, "keep_ratio: got 0"):
      budgets.calibrate(self.scores, self.mask, 0.0)
    with self.assertRaisesRegex(ValueError, "visual_mask: no prompt"):
      budgets.calibrate(self.scores, np.zeros_like(self.mask), 0.5)
    with self.assertRaisesRegex(ValueError, "visual_mask: holds other values than 0 and 1"):
      budgets.calibrate(self.scores, self.mask * 0.5, 0.5)
    with self.assertRaisesRegex(ValueError, r"scores and visual_mask: got shapes \(30, 50\) and \(30, 9\)"):
      budgets.calibrate(self.scores, self.mask[:, :9], 0.5)
    with self.assertRaisesRegex(ValueError, "scores: some visual tokens have scores that are not finite"):
      budgets.calibrate(np.full_like(self.scores, np.nan), self.mask, 0.5)
    with self.assertRaisesRegex(ValueError, "bound_ratio: got 'a', must be from keep_ratio, 0.5, to 1"):
      budgets.calibrate(self.scores, self.mask, 0.5, "a")
    with self.assertRaisesRegex(ValueError, "steps: got 0, must be a whole number of at least 1"):
      budgets.calibrate(self.scores, self.mask, 0.5, steps=0)


if __name__ == "__main__":
  absltest.main()
