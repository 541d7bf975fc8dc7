"""A small study: its files, that its figures come from the runs, and that it resumes."""

import contextlib
import csv
import dataclasses
import functools
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np
from scipy import stats

from experiments import compare
from experiments import study
from experiments.estimation import estimators
from experiments.estimation import outcomes
from experiments.estimation import per_question
from experiments.reporting import figures

# The names that the study refers to, with estimators that compile quickly.
ESTIMATES = {
  "ablation": {"metric": "log_likelihood"},
  "learned": {"estimator": "attention_mass"},
  "ablation, seed 1": {"metric": "log_likelihood", "seed": 1},
}
QUESTIONS = 5


class Killed(BaseException):
  pass


class StudyTest(absltest.TestCase):
  def test_study(self):
    directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.output, self.results = (directory / name / "qwen2_5_vl" for name in ("out", "results"))
    self.enter_context(
      mock.patch.multiple(study, ESTIMATES=ESTIMATES, REPEATED=("ablation, seed 1",), SIZES=(1,), UNCALIBRATED={})
    )
    few = functools.partial(compare.Settings, batch_size=QUESTIONS)
    self.enter_context(mock.patch.object(study.compare, "Settings", few))
    self.enter_context(mock.patch.object(study.compare, "CALIBRATION", QUESTIONS))
    # Drawing takes long, and other tests do it.
    self.enter_context(
      mock.patch.object(figures, "encode", side_effect=lambda figure, suffix: f"{len(figure.axes)} panels".encode())
    )
    settings = study.Settings(
      questions=QUESTIONS,
      examples=1,
      keep_ratio=(0.2,),
      selector=("random",),
      merge=("none",),
      output_dir=str(directory / "out"),
      results_dir=str(self.results.parent),
    )
    # The comparison needs most of the memory maps that a process may have.
    release = self.enter_context(mock.patch.object(study.jax, "clear_caches"))
    killed = mock.patch.object(
      study.compare, "run", side_effect=lambda settings: release.assert_called_once() or self.kill()
    )
    with killed, self.assertRaises(Killed):
      study.run(settings)
    self.assertEmpty(list(self.results.iterdir()))
    journals = {path: path.read_bytes() for path in self.output.rglob("*.jsonl")}
    self.assertEqual({path.parent.name for path in journals}, {"ablation", "learned", "ablation_seed_1"})

    with self.only(comparison=True):
      self.table = study.run(settings)
    self.assertEqual({path: path.read_bytes() for path in journals}, journals)
    self.check_files()
    self.check_importance()
    self.check_accuracies()
    self.check_correlations()

    before = self.read_results()
    with self.only(comparison=False):
      self.assertEqual(study.run(settings), self.table)
    self.assertEqual(self.read_results(), before)
    self.check_right_answers()

    untimed = dataclasses.replace(settings, timing_rounds=0, results_dir=str(directory / "untimed"))
    with self.only(comparison=False):
      study.run(untimed)
    written = {path.name for path in (directory / "untimed" / "qwen2_5_vl").iterdir()}
    self.assertEqual({path.name for path in self.results.iterdir()} - written, {"milliseconds.md", "milliseconds.csv"})

  def kill(self):
    raise Killed

  def only(self, comparison):
    """A context in which nothing is left to compute but perhaps the comparison."""
    stack = contextlib.ExitStack()
    stack.enter_context(mock.patch.object(estimators, "_ablate", side_effect=Killed))
    stack.enter_context(mock.patch.object(estimators, "_attention_mass", side_effect=Killed))
    if not comparison:
      stack.enter_context(mock.patch.object(outcomes, "measure", side_effect=Killed))
    return stack

  def read_results(self):
    return {path.name: path.read_bytes() for path in self.results.iterdir() if path.suffix != ".png"}

  def weights(self, estimate):
    return np.asarray(json.loads((self.output / estimate / "head_importance.json").read_text())["head_importance"])

  def rows(self, heading):
    """Cells of the table in importance.md that follows a line, by the row's name."""
    lines = (self.results / "importance.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading)) + 4
    end = lines.index("", start) if "" in lines[start:] else len(lines)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start:end]]
    return {row[0]: row[1:] for row in cells}

  def check_files(self):
    """Everything that documents refer to, as the runs left it."""
    self.assertEqual(
      {path.name for path in self.results.iterdir()},
      {
        "importance.md",
        "compare.md",
        "compare.csv",
        "datasets.csv",
        "per_question.npz",
        "compare.png",
        "compare.pdf",
        "milliseconds.md",
        "milliseconds.csv",
        "heads.png",
        "heads.pdf",
        "ablation.png",
        "ablation.pdf",
        "ablation.json",
        "learned.json",
      },
    )
    for name in ("ablation", "learned"):
      written = (self.output / name / "head_importance.json").read_bytes()
      self.assertEqual((self.results / f"{name}.json").read_bytes(), written)

  def check_importance(self):
    """The weights are those of the runs."""
    found = self.rows("Head importance")
    self.assertEqual(list(found), list(ESTIMATES))
    for estimate, cells in found.items():
      weights = self.weights(estimate.replace(",", "").replace(" ", "_"))
      self.assertEqual(cells, [f"{8 * weight / weights.sum():.2f}" for weight in weights])
      self.assertGreater(np.ptp(weights), 0)

  def check_accuracies(self):
    """They are the shares of right answers in the comparison's journal, under the weights of the runs."""
    settings, *records = map(json.loads, (self.output / "compare" / "batches.jsonl").read_text().splitlines())
    self.assertLen(settings["importance"], 3)
    for name in ("ablation", "learned"):
      np.testing.assert_allclose(settings["importance"][name], self.weights(name), rtol=1e-5)
    with open(self.results / "compare.csv", newline="") as file:
      rows = list(csv.DictReader(file))
    names = [
      "all tokens",
      "uniform",
      "ablation",
      "learned",
      "uniform, adaptive",
      "learned, adaptive",
      "random",
      *(f"head {head}" for head in range(8)),
    ]
    self.assertEqual([row["row"] for row in rows], names)
    for row, entry in zip(rows, self.table, strict=True):
      bits = "".join(record["right"][f"{row['row']}@{float(row['kept']):g}"] for record in records)
      self.assertLen(bits, QUESTIONS)
      self.assertAlmostEqual(float(row["accuracy"]), bits.count("1") / QUESTIONS)
      self.assertEqual((entry["row"], entry["accuracy"]), (row["row"], float(row["accuracy"])))
    self.assertGreater(float(rows[0]["accuracy"]), 0.6)

  def check_right_answers(self):
    """They are those of the journal, and the weights those of the runs."""
    found = per_question.load(self.results / "per_question.npz")
    _, *records = map(json.loads, (self.output / "compare" / "batches.jsonl").read_text().splitlines())
    self.assertEqual(list(found.right), list(records[0]["right"]))
    for name, right in found.right.items():
      self.assertEqual("".join("01"[bit] for bit in right.astype(int)), "".join(record["right"][name] for record in records))
    self.assertEqual(list(found.weights), ["uniform", "ablation", "learned"])
    for name in ("ablation", "learned"):
      np.testing.assert_allclose(found.weights[name], self.weights(name), rtol=1e-5)

  def check_correlations(self):
    """With the accuracy of each head alone, and of the repeated runs."""
    single = [entry["accuracy"] for entry in self.table if entry["row"].startswith("head ")]
    for name, cells in self.rows("Spearman").items():
      self.assertLen(cells, 4)
      weights = self.weights(name.replace(",", "").replace(" ", "_"))
      self.assertEqual(cells[-1], f"{stats.spearmanr(weights, single).statistic:+.2f}")
    self.assertEqual(list(self.rows("Ablation on two calibration sets")), ["1"])

  def test_all_settings_are_checked_before_the_first_run(self):
    directory = self.enter_context(tempfile.TemporaryDirectory())
    for ratio in (7.0, 1.0):
      settings = study.Settings(keep_ratio=(ratio,), output_dir=directory, results_dir=directory)
      refused = self.assertRaisesRegex(ValueError, f"^keep_ratio: got {ratio}")
      with mock.patch.object(study.head_importance, "run") as run, refused:
        study.run(settings)
      run.assert_not_called()

  def test_settings_of_the_method_reach_the_estimates_that_read_them(self):
    directory = self.enter_context(tempfile.TemporaryDirectory())
    settings = study.Settings(
      score_layer=2, rope=True, sink_filter=0.1, timing_rounds=0, output_dir=directory, results_dir=directory
    )
    estimated = []
    with (
      mock.patch.object(study.head_importance, "run", side_effect=estimated.append),
      mock.patch.object(study.compare, "run", side_effect=Killed) as compared,
      self.assertRaises(Killed),
    ):
      study.run(settings)
    found = dict(zip(study.ESTIMATES, estimated, strict=True))
    layers = {name: each.score_layer for name, each in found.items()}
    self.assertEqual(layers, {name: 0 if name == "random weights" else 2 for name in study.ESTIMATES})
    self.assertEqual({name for name, each in found.items() if each.rope}, {"learned"})
    (comparing,) = compared.call_args.args
    self.assertEqual((comparing.score_layer, comparing.rope, comparing.sink_filter), (2, True, 0.1))
    self.assertEqual((comparing.timing_rounds, comparing.selector), (0, settings.selector))

  def test_several_models(self):
    directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    settings = study.Settings(
      model=("a/one", "b/two"), score_layer=1, output_dir=str(directory / "out"), results_dir=str(directory / "results")
    )
    with (
      mock.patch.object(study, "_run") as run,
      mock.patch.object(study.over_models, "run", return_value=[]) as over_models,
    ):
      self.assertEqual(study.run(settings), [])
    names = ("one", "two")
    expected = [mock.call(settings, f"{'ab'[number]}/{name}", directory / "out" / name, directory / "results" / name)
                for number, name in enumerate(names)]  # fmt: skip
    self.assertEqual(run.call_args_list, expected)
    (called,) = over_models.call_args.args
    self.assertEqual((called.results_dir, called.model), (str(directory / "results"), names))


if __name__ == "__main__":
  absltest.main()
