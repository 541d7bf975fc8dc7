"""Scores equal those of VLMEvalKit's own scorers, in goldens/metrics.json (tests/reference/make_metric_goldens.py)."""

import json
import pathlib

from absl.testing import absltest
from absl.testing import parameterized

from experiments.evaluation.benchmarks import chartqa
from experiments.evaluation.benchmarks import hallusionbench
from experiments.evaluation.benchmarks import metrics
from experiments.evaluation.benchmarks import mmbench
from experiments.evaluation.benchmarks import mme
from experiments.evaluation.benchmarks import pope
from experiments.evaluation.benchmarks import textvqa
from experiments.evaluation.benchmarks.questions import choice
from experiments.evaluation.benchmarks.questions import short_answer
from experiments.evaluation.benchmarks.questions import video_choice
from experiments.evaluation.benchmarks.questions import yes_no
from experiments.evaluation.benchmarks.tsv import as_list

GOLDENS = json.loads((pathlib.Path(__file__).parents[2] / "goldens" / "metrics.json").read_text())


class MetricsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    for name, cases in GOLDENS.items():
      if name != "prompts":
        self.assertGreaterEqual(len(cases["rows"] if isinstance(cases, dict) else cases), 20)

  @parameterized.parameters(("consensus", textvqa.consensus), ("relaxed", chartqa.relaxed), ("exact", short_answer.exact))
  def test_answers(self, name, metric):
    for prediction, answer, score in GOLDENS[name]:
      answers = answer if isinstance(answer, list) else as_list(answer)
      self.assertAlmostEqual(metric(prediction, answers), score, msg=f"{prediction!r} for {answer!r}")
    self.assertLen({score > 0 for _, _, score in GOLDENS[name]}, 2)

  def test_yes_or_no(self):
    for prediction, answer in GOLDENS["yes_no"]:
      self.assertEqual(yes_no.extract(prediction), answer, msg=repr(prediction))
    self.assertEqual({answer for _, answer in GOLDENS["yes_no"]}, {"Yes", "No", "Unknown"})

  def test_option(self):
    for prediction, options, letter in GOLDENS["option"]:
      self.assertEqual(choice.extract(prediction, options), letter, msg=repr(prediction))
    self.assertEqual({letter for _, _, letter in GOLDENS["option"]}, set("ABCDEZ"))

  def test_video_option(self):
    for prediction, letter in GOLDENS["video_option"]:
      self.assertEqual(video_choice.extract(prediction), letter or "Z", msg=repr(prediction))

  def golden_rows(self, name, *columns):
    rows = GOLDENS[name]["rows"]
    return [[row[column] for row in rows] for column in columns]

  def test_mme(self):
    result = mme.points(*self.golden_rows("mme", "category", "image_path", "score"))
    expected = GOLDENS["mme"]["result"][0]
    for name, value in expected.items():
      self.assertAlmostEqual(result[name], value, msg=name)
    self.assertAlmostEqual(result["total"], expected["perception"] + expected["reasoning"])

  def test_hallusion(self):
    indices, groups, scores = self.golden_rows("hallusion", "index", "l2-category", "score")
    expected = GOLDENS["hallusion"]["result"][0]
    result = hallusionbench.accuracies(indices, groups, scores)
    for name in ("aAcc", "fAcc", "qAcc"):
      self.assertAlmostEqual(result[name], expected[name], msg=name)
    self.assertAlmostEqual(result["average"], sum(expected[name] for name in ("aAcc", "fAcc", "qAcc")) / 3)

  def test_pope(self):
    result = pope.f1(*self.golden_rows("pope", "category", "answer", "extracted"))
    for expected in GOLDENS["pope"]["result"]:
      prefix = "" if expected["split"] == "Overall" else f"{expected['split']} "
      self.assertAlmostEqual(result[f"{prefix}F1"], expected["Overall"])
      self.assertAlmostEqual(result[f"{prefix}accuracy"], expected["acc"])
    self.assertAlmostEqual(result["precision"], GOLDENS["pope"]["result"][0]["precision"])

  def test_pope_without_a_yes(self):
    self.assertEqual(pope.f1(["a", "a"], ["No", "Yes"], ["No", "No"])["F1"], 0.0)

  def test_circular(self):
    rows = GOLDENS["circular"]["rows"]
    scores = [
      choice.extract(row["prediction"], {name: row[name] for name in "ABCD" if row.get(name)}) == row["GT"] for row in rows
    ]
    result = mmbench.circular([str(row["index"]) for row in rows], scores)
    self.assertEqual({index: int(hit) for index, hit in result.items()}, GOLDENS["circular"]["result"])
    self.assertGreater(sum(scores), 3 * sum(result.values()) + 1)  # rotations that are right alone

  def test_accuracy_by_group(self):
    result = metrics.accuracy({"category": ["b", "a", "", "b"]}, [1, 0, 1, 0])
    self.assertEqual(result, {"overall": 50.0, "a": 0.0, "b": 50.0})


if __name__ == "__main__":
  absltest.main()
