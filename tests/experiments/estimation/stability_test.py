"""How far importances agree, on scores for which the answer is known."""

from absl.testing import absltest
import numpy as np

from experiments.estimation import stability
from hawk_jax import importance


class StabilityTest(absltest.TestCase):
  def scores(self, noise):
    rng = np.random.default_rng(0)
    labels = np.repeat(["a", "b"], 60)
    means = np.asarray([[0, 1, 2, 3, 4], [0, 3, 1, 4, 9]])[(labels == "b").astype(int)]
    return labels, means + noise * rng.normal(size=[120, 5])

  def test_weights_are_those_of_the_means(self):
    labels, scores = self.scores(1.0)
    drops = np.stack([scores[:60].mean(axis=0), scores[60:].mean(axis=0)], axis=1)
    np.testing.assert_array_equal(stability.weights_of(labels, scores), importance.from_ablation(drops))
    self.assertIsNone(stability.weights_of(labels, np.ones([120, 5])))

  def test_rank_correlation(self):
    # One pair of five is swapped: 1 - 6 * 2 / (5 * 24).
    self.assertAlmostEqual(stability.rank_correlation(np.arange(5), np.asarray([0, 10, 20, 40, 30])), 0.9)
    self.assertTrue(np.isnan(stability.rank_correlation(np.arange(5), np.ones(5))))

  def test_more_examples_agree_better(self):
    few, many = stability.over_sizes(*self.scores(6.0), sizes=(3, 30))
    self.assertGreater(many["correlation"], few["correlation"] + 0.1)
    self.assertGreater(many["same_best"], few["same_best"])
    self.assertEqual((few["examples"], many["examples"], many["informative"]), (3, 30, 1.0))
    (exact,) = stability.over_sizes(*self.scores(0.0), sizes=(5, 31))  # two sets of 31 cannot be drawn from 60
    self.assertAlmostEqual(exact["correlation"], 1.0)
    self.assertEqual((exact["examples"], exact["same_best"], exact["informative"]), (5, 1.0, 1.0))

  def test_pairs_that_do_not_distinguish_heads_are_counted(self):
    labels, scores = np.repeat(["a"], 40), np.zeros([40, 3])
    scores[0, 1] = 1.0  # a single example distinguishes heads
    (row,) = stability.over_sizes(labels, scores, sizes=(10,))
    self.assertEqual(row["informative"], 0.0)
    self.assertTrue(np.isnan(row["correlation"]))

  def test_markdown(self):
    rows = {"one": np.asarray([0.5, 0.3, 0.2]), "two": np.asarray([0.2, 0.3, 0.5])}
    text = stability.markdown(
      rows, [{"examples": 10, "correlation": 0.5, "same_best": 0.25, "informative": 1.0}], np.asarray([3, 2, 1])
    )
    self.assertIn("| one | 1.50 | 0.90 | 0.60 |", text)
    self.assertIn("| one | +1.00 | -1.00 | +1.00 |", text)
    self.assertIn("| 10 | +0.50 | 25 % | 100 % |", text)

  def test_single_heads_are_those_of_the_larger_share(self):
    rng = np.random.default_rng(0)
    hits = {f"head {head}@{kept:g}": rng.random(10) < 0.5 for kept in (0.05, 0.1) for head in range(11)}
    found = stability.single_heads({"uniform@0.4": np.ones(10, bool)} | hits)
    np.testing.assert_allclose(found, [hits[f"head {head}@0.1"].mean() for head in range(11)])
    self.assertEmpty(stability.single_heads({"uniform@0.4": np.ones(10, bool)}))


if __name__ == "__main__":
  absltest.main()
