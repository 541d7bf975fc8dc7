"""Accuracies, intervals and paired tests against plain formulas."""

import csv
import io
import math

from absl.testing import absltest
import numpy as np
from scipy import stats

from experiments.estimation import comparison
from experiments.reporting import figures

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
    curves = comparison.series(self.table)
    self.assertEqual(list(curves), ["better"])
    shares, accuracies, lows, _ = zip(*curves["better"])
    whole, better = (100 * self.hits[name].mean() for name in ("all tokens@1", "better@0.1"))
    np.testing.assert_allclose(shares, [5, 10, 100])
    np.testing.assert_allclose(accuracies, [better, better, whole])
    self.assertAlmostEqual(lows[1], 100 * self.at["better", 0.1]["low"])

  def test_front(self):
    front = {(entry["row"], entry["kept"]) for entry in self.table if entry["front"]}
    # `better` is as accurate with half of the tokens; shares kept are all the same here.
    self.assertEqual(front, {("all tokens", 1.0)})
    kept = {name: float(name.split("@")[1]) for name in self.hits} | {"head 0@0.05": 0.01}
    table = comparison.analyse(self.hits | {"head 0@0.05": np.ones(QUESTIONS, bool)}, kept)
    front = {(entry["row"], entry["kept"]) for entry in table if entry["front"]}
    self.assertEqual(front, {("all tokens", 1.0), ("better", 0.05)})

  def test_front_of_time(self):
    times = {
      "all tokens@1": 9.0,
      "uniform@0.1": 2.0,
      "better@0.1": 2.0,
      "mixed@0.1": 1.0,
      "random@0.1": 1.5,
      "better@0.05": 3.0,
    }
    entries = comparison.timed(self.table, times)
    at = {f"{entry['row']}@{entry['kept']:g}": entry for entry in entries}
    self.assertEqual({name: entry["milliseconds"] for name, entry in at.items()}, times)
    self.assertEqual({name for name, entry in at.items() if entry["front"]}, {"all tokens@1", "better@0.1", "mixed@0.1"})
    rows = list(csv.DictReader(io.StringIO(comparison.timed_csv(entries))))
    self.assertEqual([float(row["milliseconds"]) for row in rows], [*times.values()])
    text = comparison.timed_markdown(entries, "title")
    self.assertRegex(text, r"\| 9.00 \| all tokens \| 100 % \|.*\n\| 2.00 \| better \| 10 % \|.*\n\| 1.00 \| mixed ")
    self.assertIn("| better |  | 2.00 | 3.00 |", text)

  def test_over_models(self):
    rng = np.random.default_rng(1)
    levels = (0.5, 0.7, 0.8)
    hits = {
      str(level): {
        "all tokens@1": np.ones(500, bool),
        "uniform@0.1": (base := rng.random(500) < level),
        "better@0.1": base | (rng.random(500) < 0.3),
        "head 0@0.1": np.ones(500, bool),
      }
      for level in levels
    }
    hits["0.5"]["only here@0.1"] = np.ones(500, bool)
    table = comparison.over_models(hits, ("uniform",))
    at = {entry["row"]: entry for entry in table}
    self.assertEqual(list(at), ["all tokens", "uniform", "better"])
    means = [hits[str(level)]["uniform@0.1"].mean() for level in levels]
    self.assertAlmostEqual(at["uniform"]["accuracy"], np.mean(means))
    # The models differ more than the questions, so that the interval is little wider than that of t over models.
    low, high = stats.ttest_1samp(means, 0).confidence_interval()
    self.assertGreater(low, 0.3)
    self.assertBetween(at["uniform"]["high"] - at["uniform"]["low"], 0.9 * (high - low), 1.1 * (high - low))
    # Every model is better by far; three models that agree are no proof beyond doubt.
    gains = [(own["better@0.1"].astype(float) - own["uniform@0.1"]).mean() for own in hits.values()]
    self.assertAlmostEqual(at["better"]["uniform"]["difference"], np.mean(gains))
    self.assertGreater(at["better"]["uniform"]["p"], 1e-4)
    self.assertTrue(at["better"]["front"] and not at["uniform"]["front"])
    self.assertEqual((at["all tokens"]["low"], at["all tokens"]["high"]), (1, 1))
    [winner] = comparison.best_over_models(hits, ("uniform",))
    self.assertEqual((winner["row"], winner["kept"]), ("better", 0.1))
    halves = {name: {row: found[1::2] for row, found in own.items()} for name, own in hits.items()}
    self.assertEqual(winner["uniform"], comparison.over_models(halves, ("uniform",))[2]["uniform"])
    text = comparison.markdown(table, "title", ("uniform",), [winner], test="some test's p")
    self.assertIn("The best row at each share, chosen on every second question", text)
    self.assertIn("| better |  |", text)
    self.assertIn("with 95 % interval and some test's p:", text)
    self.assertNotIn("McNemar", text)

  def test_transfer(self):
    found = comparison.by_dataset(self.hits, ["a", "b"] * (QUESTIONS // 2))
    uniform = self.hits["uniform@0.1"]
    self.assertEqual(found["uniform@0.1"], {"a": uniform[::2].mean(), "b": uniform[1::2].mean()})
    text = comparison.transfer(found, ["uniform", "better"], [0.1])
    self.assertIn(f"| uniform | {100 * uniform[::2].mean():.1f} | {100 * uniform[1::2].mean():.1f} |", text)
    self.assertEqual(comparison.datasets_csv(found).splitlines()[0], "row,kept,a,b")

  def test_panels_show_no_more_than_can_be_told_apart(self):
    table = [dict(row="all tokens", kept=1.0, accuracy=0.9, low=0.9, high=0.9)]
    rows = ["uniform", "random", *(f"rule {number}" for number in range(12)), "mine"]
    table += [dict(row=row, kept=kept, accuracy=0.1 * len(row), low=0, high=1) for row in rows for kept in (0.1, 0.2)]
    panels = comparison.panels(table, ["uniform", "mine"], rows[1:14])
    self.assertEqual([list(panel.curves) for panel in panels][0], ["uniform", "mine"])
    self.assertEqual([len(panel.curves) for panel in panels], [2, 8, 6])
    self.assertContainsSubset(["uniform", "random"], panels[2].curves)
    self.assertEqual(panels[0].curves["mine"][-1][0], 100)
    self.assertEqual(figures.encode(figures.curves(panels, "y"))[:4], b"\x89PNG")
    first, second = (figures.encode(figures.curves(panels, "y"), ".pdf") for _ in range(2))
    self.assertTrue(first.startswith(b"%PDF") and first == second)

  def test_best_is_measured_on_other_questions(self):
    hits = {name: found.copy() for name, found in self.hits.items()}
    hits["lucky@0.1"] = np.arange(QUESTIONS) % 2 == 0
    hits["head 0@0.1"] = np.ones(QUESTIONS, bool)
    winners = comparison.best(hits, ("uniform",))
    self.assertEqual([(entry["kept"], entry["row"]) for entry in winners], [(0.1, "lucky"), (0.05, "better")])
    self.assertEqual(winners[0]["accuracy"], 0.0)
    self.assertAlmostEqual(winners[0]["uniform"]["difference"], -self.hits["uniform@0.1"][1::2].mean())
    text = comparison.markdown(self.table, "title", ("uniform",), winners)
    self.assertIn("| 10 % | lucky | 0.0 (0.0 to 0.0) | -", text)


if __name__ == "__main__":
  absltest.main()
