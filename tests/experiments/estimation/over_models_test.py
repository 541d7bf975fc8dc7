"""The table of several models says what it holds, and refuses what cannot be averaged."""

import dataclasses
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.estimation import over_models
from experiments.estimation import per_question

QUESTIONS = 8
RESULTS = pathlib.Path(over_models.__file__).parents[1] / "results"


def outcome(seed, single):
  """A comparison with random answers, and with single heads of given accuracy at 10 %."""
  rng = np.random.default_rng(seed)
  right = {name: rng.random(QUESTIONS) < 0.5 for name in ("all tokens@1", "uniform@0.1", "mine@0.1", "random@0.1")}
  right |= {f"head {head}@0.1": np.arange(QUESTIONS) < accuracy * QUESTIONS for head, accuracy in enumerate(single)}
  weights = {"uniform": np.ones(3) / 3, "mine": np.asarray([0.6, 0.1, 0.3]), "asked": np.full(3, np.nan)}
  return per_question.PerQuestion("abc", " with --score_layer=1", "2 CPU cores, today", right, weights)


class OverModelsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.found = {"one": outcome(0, (0.75, 0.25, 0.5)), "two": outcome(1, (0.125, 0.25, 0.375))}
    for name, found in self.found.items():
      self.write(name, found)

  def write(self, name, found):
    (self.directory / name).mkdir(exist_ok=True)
    (self.directory / name / per_question.FILE).write_bytes(per_question.encode(found))

  def run_with(self, **settings):
    table = over_models.run(over_models.Settings(results_dir=str(self.directory), **settings))
    return table, (self.directory / "models.md").read_text()

  def test_table(self):
    table, text = self.run_with()
    self.assertEqual({path.name for path in self.directory.iterdir()}, {"one", "two", *over_models.RESULTS})
    self.assertRegex(
      text,
      r"^8 held-out questions with --score_layer=1; .* means over 2 models \(one, two\) with 95 % t intervals over models "
      "and questions; measured on 2 CPU cores, today.\n",
    )
    self.assertIn("Difference to `uniform` on the same questions, in points, with 95 % interval and the p of Clark's", text)
    self.assertNotIn("McNemar", text)
    for entry in table:
      name = f"{entry['row']}@{entry['kept']:g}"
      self.assertAlmostEqual(entry["accuracy"], np.mean([found.right[name] for found in self.found.values()]))
    rows = [line for line in (self.directory / "models.csv").read_text().splitlines()[1:]]
    self.assertLen(rows, len(table))
    self.assertIn("| one | 25.0 | 50.0 | 75.0 |\n| two | 12.5 | 25.0 | 37.5 |\n", text)
    self.assertIn("| mine | +1.00 | -0.50 | +0.25 |\n", text)
    self.assertNotIn("| asked |", text)

  def test_some_of_the_models(self):
    self.write("three", dataclasses.replace(self.found["one"], questions="other"))
    _, text = self.run_with(model=("two", "one"))
    self.assertIn("means over 2 models (two, one) with", text)
    with self.assertRaisesRegex(ValueError, "results_dir: three was measured with other questions or settings than one"):
      self.run_with()

  def test_other_settings_are_refused(self):
    self.write("two", dataclasses.replace(self.found["two"], flags=""))
    with self.assertRaisesRegex(ValueError, "results_dir: two was measured with other questions or settings than one"):
      self.run_with()

  def test_one_model_is_refused(self):
    with self.assertRaisesRegex(ValueError, "must hold the results of two or more models, got one"):
      self.run_with(model=("one",))
    with self.assertRaisesRegex(ValueError, "must hold the results of two or more models, got none"):
      over_models.run(over_models.Settings(results_dir=str(self.directory / "one")))

  def test_a_directory_that_is_not_there(self):
    missing = self.directory / "three"
    with self.assertRaisesRegex(ValueError, "results_dir: there is no directory '.*three'"):
      over_models.run(over_models.Settings(results_dir=str(missing)))
    self.assertFalse(missing.exists())
    with self.assertRaisesRegex(OSError, "three/per_question.npz"):
      self.run_with(model=("one", "three"))

  def test_committed_tables_follow_from_committed_answers(self):
    self.enter_context(mock.patch.object(over_models.figures, "encode", return_value=b""))
    tables = sorted(RESULTS.glob("*/models.md"))
    self.assertNotEmpty(tables)
    for table in tables:
      with self.subTest(table.parent.name), tempfile.TemporaryDirectory() as directory:
        for path in table.parent.glob(f"*/{per_question.FILE}"):
          (pathlib.Path(directory) / path.parent.name).mkdir()
          shutil.copy(path, pathlib.Path(directory) / path.parent.name)
        over_models.run(over_models.Settings(results_dir=directory))
        self.assertEqual((pathlib.Path(directory) / "models.md").read_text(), table.read_text())


if __name__ == "__main__":
  absltest.main()
