"""Intervals over models and questions against scipy's t test, Clark's formula and simulated studies."""

from absl.testing import absltest
import numpy as np
from scipy import stats

from experiments.reporting import intervals


class CrossedTest(absltest.TestCase):
  def test_models_that_answer_alike_are_one(self):
    one = np.random.default_rng(0).integers(-1, 2, 300).astype(float)
    expected = stats.ttest_1samp(one, 0)
    low, high = expected.confidence_interval()
    for count in (2, 5):
      found = intervals.crossed(np.tile(one, (count, 1)))
      np.testing.assert_allclose([*found.values()], [one.mean(), low, high, expected.pvalue])

  def test_is_clarks_min_f(self):
    values = np.random.default_rng(0).normal(0.3, size=(4, 30)) + np.arange(4)[:, None] / 4
    found = intervals.crossed(values)
    models, questions = (stats.ttest_1samp(values.mean(axis=axis), 0).statistic ** 2 for axis in (1, 0))
    smallest = models * questions / (models + questions)
    freedom = (models + questions) ** 2 / (models**2 / 29 + questions**2 / 3)
    self.assertAlmostEqual(found["p"], stats.f.sf(smallest, 1, freedom))
    self.assertEqual(found["p"] < 0.05, found["low"] > 0)

  def test_agreement_of_few_models_is_no_proof(self):
    right = np.ones([3, 400])
    right[0, :40], right[1, :20] = 0, -1
    self.assertGreater(intervals.crossed(right)["p"], 1e-4)

  def test_equal_scores(self):
    self.assertEqual(intervals.crossed(np.zeros([3, 5])), {"difference": 0, "low": 0, "high": 0, "p": 1})
    self.assertEqual(intervals.crossed(np.ones([3, 5])), {"difference": 1, "low": 1, "high": 1, "p": 0})

  def test_intervals_hold_the_mean_as_often_as_they_say(self):
    rng = np.random.default_rng(0)
    for models, of_models, of_questions in ((3, 1, 0.1), (4, 0.1, 1), (5, 0.3, 3)):
      inside = 0
      for _ in range(500):
        values = of_models * rng.normal(size=(models, 1)) + of_questions * rng.normal(size=(1, 50))
        found = intervals.crossed(values + rng.normal(size=(models, 50)))
        inside += found["low"] < 0 < found["high"]
      self.assertBetween(inside / 500, 0.925, 1)


if __name__ == "__main__":
  absltest.main()
