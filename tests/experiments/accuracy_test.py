"""The accuracy table of the embedded models is counted correctly."""

import contextlib
import io
import json
import pathlib
import tempfile

from absl.testing import absltest
import numpy as np

from experiments import accuracy
from experiments.digits import task
from experiments.running import watching

QUESTIONS = 10


class AccuracyTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    with tempfile.TemporaryDirectory() as directory, contextlib.redirect_stdout(io.StringIO()) as printed:
      cls.report = accuracy.run(
        accuracy.Settings(questions=QUESTIONS, batch_size=5, keep_ratio=(1.0, 0.2), selector=("hawk",), output_dir=directory)
      )
      cls.metrics = watching.read(pathlib.Path(directory) / "metrics.jsonl")
      cls.written = json.loads((pathlib.Path(directory) / "accuracy.json").read_text())
    cls.lines = printed.getvalue().splitlines()

  def test_what_is_returned_is_written(self):
    self.assertEqual(self.written, self.report)
    self.assertEqual(self.report["questions"], QUESTIONS)
    np.testing.assert_allclose(self.report["head_importance"], 1 / 8)

  def test_metrics(self):
    self.assertEqual([line["step"] for line in self.metrics], [1, 2])
    self.assertEqual(self.metrics[-1]["right/hawk 0.2"], self.report["accuracy"]["hawk 0.2"]["all"])

  def test_rows_are_consistent(self):
    table = self.report["accuracy"]
    self.assertEqual(list(table), ["all tokens", "hawk 1", "hawk 0.2", "no picture", "no question"])
    for row in table.values():
      self.assertEqual(list(row), ["all", *task.KINDS])
      # Two questions of each of the five kinds.
      self.assertContainsSubset({row[kind] for kind in task.KINDS}, {0.0, 0.5, 1.0})
      self.assertAlmostEqual(row["all"], np.mean([row[kind] for kind in task.KINDS]))
    self.assertEqual(table["hawk 1"], table["all tokens"])
    self.assertGreaterEqual(table["all tokens"]["all"], 0.8)
    self.assertGreaterEqual(table["hawk 0.2"]["all"], 0.5)
    self.assertLessEqual(max(table["no picture"]["all"], table["no question"]["all"]), 0.4)

  def test_table_shows_the_numbers(self):
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in self.lines if line.startswith("|")]
    self.assertEqual(cells[0], ["share of right answers, %", "all", *task.KINDS])
    shown = {name: [float(cell) for cell in row] for name, *row in cells[2:]}
    self.assertEqual(
      shown, {name: [round(100 * share, 1) for share in row.values()] for name, row in self.report["accuracy"].items()}
    )

  def test_selectors_that_need_scores_of_their_own_are_refused(self):
    with self.assertRaisesRegex(ValueError, "selector: got 'cdpruner'"):
      accuracy.Settings(selector=("hawk", "cdpruner"))


if __name__ == "__main__":
  absltest.main()
