"""Accuracies, intervals and paired tests against plain formulas."""

import csv
import io
import math

from absl.testing import absltest
import numpy as np

from experiments.estimation import comparison

QUESTIONS = 1000


class ComparisonTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    uniform = rng.random(QUESTIONS) < 0.7
    better = uniform | (rng.random(QUESTIONS) < 0.1)
    flips = rng.permutation(QUESTIONS)[:40]
    mixed = uniform.copy()
    mixed[flips] = ~mixed[flips]
    self.hits = {
      "all tokens@1": rng.random(QUESTIONS) < 0.9,
      "uniform@0.1": uniform,
      "better@0.1": better,
      "mixed@0.1": mixed,
      "random@0.1": rng.random(QUESTIONS) < 0.2,
      "better@0.05": better,
    }
    self.table = comparison.analyse(self.hits, dict.fromkeys(self.hits, 0.104))
    self.at = {(entry["row"], entry["kept"]): entry for entry in self.table}

  def test_accuracy_and_interval(self):
    for name, found in self.hits.items():
      row, kept = name.split("@")
      entry = self.at[row, float(kept)]
      self.assertAlmostEqual(entry["accuracy"], found.mean())
      half = 1.96 * math.sqrt(found.mean() * (1 - found.mean()) / QUESTIONS)
      self.assertAlmostEqual(entry["low"], found.mean() - half, delta=0.004)
      self.assertAlmostEqual(entry["high"], found.mean() + half, delta=0.004)

  def test_paired_difference(self):
    for row in ("better", "mixed", "random"):
      difference = self.hits[f"{row}@0.1"].astype(float) - self.hits["uniform@0.1"]
      entry = self.at[row, 0.1]["uniform"]
      self.assertAlmostEqual(entry["difference"], difference.mean())
      half = 1.96 * difference.std() / math.sqrt(QUESTIONS)
      self.assertAlmostEqual(entry["low"], difference.mean() - half, delta=0.005)
      gained, lost = (difference > 0).sum(), (difference < 0).sum()
      tail = sum(math.comb(gained + lost, k) for k in range(min(gained, lost) + 1)) / 2 ** int(gained + lost)
      np.testing.assert_allclose(entry["p"], min(1.0, 2 * tail), rtol=1e-6)
    self.assertLess(self.at["better", 0.1]["uniform"]["p"], 1e-6)
    self.assertGreater(self.at["mixed", 0.1]["uniform"]["p"], 1e-6)

  def test_compared_only_at_the_same_share(self):
    self.assertNotIn("uniform", self.at["better", 0.05])
    self.assertNotIn("uniform", self.at["uniform", 0.1])
    self.assertIn("random", self.at["uniform", 0.1])

  def test_equal_answers_differ_by_nothing(self):
    hits = {"uniform@0.1": np.ones(10, bool), "same@0.1": np.ones(10, bool)}
    entry = comparison.analyse(hits, dict.fromkeys(hits, 0.1))[1]["uniform"]
    self.assertEqual(entry, {"difference": 0.0, "low": 0.0, "high": 0.0, "p": 1.0})

  def test_csv_holds_the_table(self):
    rows = list(csv.DictReader(io.StringIO(comparison.csv(self.table))))
    self.assertLen(rows, len(self.table))
    for row, entry in zip(rows, self.table):
      self.assertEqual(
        (row["row"], float(row["kept"]), float(row["accuracy"]), float(row["mean_kept"])),
        (entry["row"], entry["kept"], entry["accuracy"], 0.104),
      )
      self.assertEqual(row["uniform_p"], str(entry["uniform"]["p"]) if "uniform" in entry else "")

  def test_markdown(self):
    text = comparison.markdown(self.table, "title")
    entry = self.at["better", 0.1]
    self.assertIn("| | 100 % kept | 10 % kept | 5 % kept |", text)
    accuracy, low, high = (f"{100 * entry[name]:.1f}" for name in ("accuracy", "low", "high"))
    self.assertIn(f"| better |  | {accuracy} ({low} to {high}) |", text)
    self.assertIn(f"| better | {100 * entry['uniform']['difference']:+.1f} (", text)

  def test_curves_are_of_rows_measured_everywhere(self):
    shares, curves = comparison.curves(self.table)
    self.assertEqual((shares, list(curves)), ([0.05, 0.1, 1.0], ["better"]))
    whole, better = (100 * self.hits[name].mean() for name in ("all tokens@1", "better@0.1"))
    np.testing.assert_allclose(curves["better"], [better, better, whole])


if __name__ == "__main__":
  absltest.main()
