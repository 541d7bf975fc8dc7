"""The app's adaptive budgets, and importances it must not use."""

import csv
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
import numpy as np

from hawk_jax import importance

ROOT = pathlib.Path(__file__).parents[2]


class CompareTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def start(self, **settings):
    arguments = [f"--{flag}={value}" for flag, value in settings.items()]
    return subprocess.run(
        [sys.executable, "-m", "experiments.compare", "--compilation_cache=", f"--output_dir={self.directory}", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, check=False)

  def test_adaptive_budget_has_the_same_mean_within_its_bound(self):
    result = self.start(questions=40, keep_ratio=0.1, adaptive="uniform", selector="random", heads=False)
    self.assertEqual(result.returncode, 0, result.stderr)
    with open(self.directory / "compare.csv", newline="") as file:
      kept = {row["row"]: float(row["mean_kept"]) for row in csv.DictReader(file)}
    self.assertEqual(kept["all tokens"], 1.0)
    self.assertAlmostEqual(kept["uniform"], 15 / 144, places=5)
    self.assertAlmostEqual(kept["random"], 15 / 144, places=5)
    self.assertNotEqual(kept["uniform, adaptive"], kept["uniform"])
    self.assertAlmostEqual(kept["uniform, adaptive"], 0.1, delta=0.02)

  def test_importance_of_another_model_is_refused(self):
    path = self.directory / "w.json"
    importance.save(str(path), np.ones(8), settings={"model": "another"})
    result = self.start(questions=5, importance=f"mine={path}")
    self.assertEqual(result.returncode, 2, result.stderr)
    self.assertRegex(result.stderr, "error: importance: .*w.json was estimated with the model another, this one is ")
    self.assertFalse((self.directory / "batches.jsonl").exists())


if __name__ == "__main__":
  absltest.main()
