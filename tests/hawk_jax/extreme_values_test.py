"""Selectors and budgets on numbers that are no numbers, or hardly any: what is picked is real, once, and in order."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from hawk_jax import budgets
from hawk_jax import scoring
from hawk_jax import selectors

BATCH, SLOTS, WIDTH, KEEP = 3, 16, 6, 8
EXTREMES = ("nan", "inf", "-inf", "1e30", "3e38", "-3e38", "1e-40")


class ExtremeValuesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.features = rng.standard_normal([BATCH, SLOTS, WIDTH]).astype(np.float32)
    self.scores = rng.standard_normal([BATCH, SLOTS]).astype(np.float32)
    self.mask = np.arange(SLOTS) % 2 == np.asarray([[0], [1], [1]])
    self.mask[2, :8] = False
    self.needed = {
      "places": rng.integers(0, 5, [BATCH, SLOTS]).astype(np.int32),
      "curve": np.cumsum(self.mask, axis=1, dtype=np.int32) - 1,
      "question": rng.standard_normal([BATCH, WIDTH]).astype(np.float32),
    }

  @parameterized.parameters(*selectors.SELECTORS)
  def test_picks(self, name):
    select = jax.jit(selectors.SELECTORS[name], static_argnames="keep_count")
    counts, seeds = np.asarray([5, 8, 8], np.int32), np.arange(BATCH, dtype=np.uint32)
    for value in map(float, EXTREMES):
      for where in ("one", "many", "all", "padding"):
        with self.subTest(f"{value} in {where}"):
          spread = {
            "one": np.arange(SLOTS) == 3,
            "many": np.arange(SLOTS) % 4 < 2,
            "all": np.ones(SLOTS, bool),
            "padding": ~self.mask,
          }[where]
          spread = np.broadcast_to(spread, [BATCH, SLOTS])
          features = np.where(spread[..., None], np.float32(value), self.features)
          scores = np.where(spread, np.float32(value), self.scores)
          kept = np.asarray(select(features, scores, self.mask, counts, seeds, keep_count=KEEP, **self.needed))
          for row, real, count in zip(kept, self.mask, np.minimum(counts, self.mask.sum(1))):
            self.assertTrue((np.diff(row[:count]) > 0).all(), row)
            self.assertTrue(real[row[:count]].all(), row)
            np.testing.assert_array_equal(row[count:], -1)

  def test_missing_arrays(self):
    arguments = (self.features, self.scores, self.mask, np.asarray([5, 8, 8]), np.arange(BATCH))
    for name in ("evs", "grid", "coin"):
      with self.assertRaisesRegex(ValueError, f"{selectors.SELECTORS[name].needs[0]}: missing, but the rule needs it"):
        selectors.SELECTORS[name](*arguments, keep_count=KEEP)

  @parameterized.parameters(*map(float, EXTREMES))
  def test_counts(self, value):
    scores = np.where(np.arange(SLOTS) < 4, np.float32(value), self.scores)
    counts = np.asarray(jax.jit(budgets.mass_counts)(scores, self.mask, 0.5))
    self.assertTrue(((counts >= 1) & (counts <= self.mask.sum(1))).all(), counts)

  def test_ordinary_numbers_are_not_changed(self):
    bounded = np.asarray(scoring.bounded(self.features, self.mask))
    np.testing.assert_array_equal(bounded, np.where(self.mask[..., None], self.features, 0))

  def test_large_scores_keep_their_order(self):
    scores = (np.arange(SLOTS, dtype=np.float32) * 1e36)[None]
    mask, counts = np.ones([1, SLOTS], bool), np.asarray([3], np.int32)
    kept = selectors.SELECTORS["hawk"](self.features[:1], scores, mask, counts, np.zeros(1, np.uint32), keep_count=4)
    np.testing.assert_array_equal(kept, [[13, 14, 15, -1]])


if __name__ == "__main__":
  absltest.main()
