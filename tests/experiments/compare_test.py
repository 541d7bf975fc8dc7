"""The command's adaptive budgets, and what it must not use."""

import csv
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments import compare
from hawk_jax import importance
from tests.reference import clip as clip_reference


class CompareTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def run_with(self, **settings):
    return compare.run(compare.Settings(**{"output_dir": str(self.directory), "timing_rounds": 0, **settings}))

  def test_adaptive_budget_has_the_same_mean_within_its_bound(self):
    # Batches like those of study_test, which share programs.
    self.enter_context(mock.patch.object(compare, "CALIBRATION", 40))
    table = self.run_with(
      questions=40, batch_size=5, keep_ratio=(0.2,), adaptive=("uniform",), selector=("random",), heads=False
    )
    with open(self.directory / "compare.csv", newline="") as file:
      kept = {row["row"]: float(row["mean_kept"]) for row in csv.DictReader(file)}
    self.assertEqual(kept, {entry["row"]: entry["mean_kept"] for entry in table})
    self.assertEqual(kept["all tokens"], 1.0)
    self.assertAlmostEqual(kept["uniform"], 29 / 144, places=5)
    self.assertAlmostEqual(kept["random"], 29 / 144, places=5)
    self.assertNotEqual(kept["uniform, adaptive"], kept["uniform"])
    self.assertAlmostEqual(kept["uniform, adaptive"], 0.2, delta=0.02)

  def test_importances_rules_and_merges_are_crossed(self):
    path = self.directory / "w.json"
    scores = {"count": [1.0, 0, 0, 0, 0, 0, 0, 2], "boxed": [0.0, 3, 0, 0, 0, 0, 0, 0]}
    importance.save(str(path), np.ones(8), scores=scores)
    table = self.run_with(
      questions=10,
      keep_ratio=(0.1,),
      importance=(f"mine={path}", "asked=question:mass"),
      selector=("random", "hawk+mmr", "pool"),
      merge=("none", "nearest"),
      reference=("mine",),
      transfer=True,
      heads=False,
      batch_size=10,
      rounding="floor",
    )
    hawk = ["uniform", "mine", "mine on count", "mine on boxed", "asked"]
    rules = ["random", *("hawk+mmr" + ("" if row == "uniform" else f", {row}") for row in hawk)]
    rows = [row + merged for row in (*hawk, *rules) for merged in ("", ", merged")]
    self.assertCountEqual([entry["row"] for entry in table], ["all tokens", *rows, "pool"])
    at = {entry["row"]: entry for entry in table}
    self.assertIn("mine", at["asked"])
    self.assertTrue(all(abs(entry["mean_kept"] - 14 / 144) < 1e-6 for entry in table if entry["kept"] < 1))
    matrix = (self.directory / "transfer.md").read_text()
    self.assertRegex(
      matrix, r"\| weights from \| color_to_digit .*\n.*\n\| uniform .*\n\| mine .*\n\| mine on count .*\n\| mine on boxed "
    )
    text = (self.directory / "compare.md").read_text()
    for heading in ("Difference to `mine`", "The front", "chosen on every second question"):
      self.assertIn(heading, text)
    for name in ("compare.pdf", "datasets.csv"):
      self.assertTrue((self.directory / name).exists())

  def test_what_was_not_measured_is_not_mentioned(self):
    with mock.patch.object(compare.figures, "bars", side_effect=compare.figures.bars) as bars:
      self.run_with(questions=5, batch_size=5, keep_ratio=(0.2,), selector=(), score_layer=1)
    self.assertEqual(bars.call_args.args[1], "head of decoder layer 1, alone")
    text = (self.directory / "compare.md").read_text()
    self.assertIn("Difference to `uniform`", text)
    self.assertNotIn("random", text + (self.directory / "compare.csv").read_text())

  def test_every_setting_is_timed_once(self):
    settings = dict(questions=5, batch_size=5, keep_ratio=(0.2,), selector=("random", "fastv"), heads=False, timing_rounds=2)
    table = self.run_with(**settings)
    with open(self.directory / "milliseconds.csv", newline="") as file:
      found = list(csv.DictReader(file))
    self.assertEqual([row["row"] for row in found], [entry["row"] for entry in table])
    self.assertTrue(all(float(row["milliseconds"]) > 0 for row in found))
    self.assertTrue(any(row["front"] == "1" for row in found))
    whole = {path.name: path.read_bytes() for path in self.directory.glob("milliseconds.*")}
    for name in compare.TIMES:
      (self.directory / name).unlink()
    with mock.patch.object(compare.outcomes, "programs") as programs:
      self.run_with(**settings)
    programs.assert_not_called()
    self.assertEqual({path.name: path.read_bytes() for path in self.directory.glob("milliseconds.*")}, whole)

  def test_importance_of_another_model_is_refused(self):
    path = self.directory / "w.json"
    importance.save(str(path), np.ones(8), settings={"model": "another"})
    with self.assertRaisesRegex(ValueError, "importance: .*w.json was estimated with the model another, this one is "):
      self.run_with(questions=5, importance=(f"mine={path}",))
    self.assertFalse((self.directory / "batches.jsonl").exists())

  @parameterized.parameters(
    (dict(importance=("mine",)), "importance: got 'mine', must be NAME=SOURCE"),
    (dict(importance=("uniform=preset:qwen2.5-vl-7b",)), "importance: got 'uniform=.* name that no other row has"),
    (dict(importance=("random=w.json",)), "importance: got 'random=w.json', must be NAME=SOURCE"),
    (dict(importance=("mine=/no/such.json",)), "importance: cannot read '/no/such.json'"),
    (dict(importance=("mine=question:sum",)), "importance: got 'question:sum', allowed are question:mass, question:entropy"),
    (dict(adaptive=("uniform",), calibration_data="/none"), "calibration_data: cannot read '/none'"),
    (dict(merge=("mean",)), "merge: got 'mean', allowed are none, nearest"),
    (dict(stages=("tower",)), "stages: got 'tower' in 'tower', must be like tower@8:0.5"),
    (dict(stages=("decoder@4:0.5",)), "stages: layer of decoder@4:0.5: got 4, must be a whole number from 1 to 3"),
    (dict(score_layer=4), "score_layer: got 4, must be a whole number from 0 to 3"),
    (dict(adaptive=("mine",)), "adaptive: got mine, the rows of HAWK are uniform"),
    (dict(adaptive=("uniform",), data="some.jsonl"), "calibration_data: adaptive budgets need it beside data"),
    (dict(importance=("all tokens=preset:qwen2.5-vl-7b",)), "importance: got 'all tokens=.* name that no other row has"),
    (dict(importance=("head 3=w.json",)), "importance: got the name 'head 3', must not begin with 'head ' as single heads"),
    (dict(keep_ratio=(1.0,)), "keep_ratio: got 1.0, one or more must be below 1$"),
    (dict(reference=("uniform", "mine")), "reference: got mine, the rows are uniform; random; .*; hawk.mmr; [^@]*$"),
    (dict(reference=("all tokens",)), "reference: got all tokens, the rows are uniform; random"),
    (dict(keep_ratio=(0.2, 1.5)), r"keep_ratio: got 1.5, must be in \(0, 1\]"),
    (dict(selector=("hawk", "mine")), "selector: got 'mine', allowed are hawk"),
    (dict(selector=("cdpruner",)), "clip: the selector cdpruner needs a CLIP checkpoint"),
  )
  def test_bad_settings(self, settings, message):
    self.refused(message, **settings)

  def refused(self, message, **settings):
    """Checks the message, and that no weights were read."""
    with mock.patch.object(compare.registry, "load_params") as load, self.assertRaisesRegex(ValueError, f"^{message}"):
      self.run_with(**{"questions": 5, **settings})
    load.assert_not_called()

  def test_files_that_say_what_they_are_not(self):
    path = self.directory / "w.json"
    for details in (dict(settings=[1]), dict(pictures=3), dict(pictures=[[]])):
      importance.save(str(path), np.ones(8), **details)
      self.refused("importance: .*w.json must hold an object under 'settings' and a list of", importance=(f"mine={path}",))

  def test_clip_of_another_model(self):
    clip_reference.write_checkpoint(self.directory, "named")
    self.refused("clip: .*: scores the visual tokens of LLaVA-1.5 only, the model is Qwen2_5_VL", clip=str(self.directory))


if __name__ == "__main__":
  absltest.main()
