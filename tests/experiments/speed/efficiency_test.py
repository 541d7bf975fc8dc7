"""The efficiency table: its sums, and a run that is interrupted."""

import dataclasses
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest

from experiments.speed import efficiency
from experiments.speed import flops
from models import load_model


class EfficiencyTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.settings = efficiency.Settings(limit=3, keep_ratio=(0.2,), max_new_tokens=2, output_dir=str(self.directory))

  def test_a_run_that_is_interrupted(self):
    measure, calls = efficiency.measure, []

    def interrupted(*args):
      if len(calls) == 6:
        raise KeyboardInterrupt
      calls.append(measure(*args))
      return calls[-1]

    with mock.patch.object(efficiency, "measure", interrupted), self.assertRaises(KeyboardInterrupt):
      efficiency.run(self.settings)
    finished = (self.directory / "journal.jsonl").read_text()
    self.assertLen(finished.splitlines(), 1 + 2)  # both answers to each of two pictures, after the pass that does not count
    rows = efficiency.run(self.settings)
    self.assertTrue((self.directory / "journal.jsonl").read_text().startswith(finished))
    self.assertEqual(json.loads((self.directory / "efficiency.json").read_text())["rows"], rows)
    self.assertEqual([(row["keep_ratio"], row["questions"]) for row in rows], [(1.0, 3), (0.2, 3)])
    # 29 of 144 visual tokens are kept.
    self.assertAlmostEqual(rows[0]["tokens"] - rows[1]["tokens"], 144 - 29)
    text = load_model(self.settings.model)[0].config.text
    self.assertAlmostEqual(rows[1]["cache_bytes"], 4 * flops.kv_cache_elements(text, 1) * rows[1]["tokens"])
    with mock.patch.object(efficiency, "measure", side_effect=AssertionError):
      self.assertEqual(efficiency.run(self.settings), rows)

  def test_preset(self):
    answer = {"seconds": 1.0, "tokens": 10, "process": None, "device": None}
    settings = dataclasses.replace(self.settings, preset="cpu", pictures=1, side=56)
    with mock.patch.object(efficiency.params_lib, "init"), mock.patch.object(efficiency, "measure", return_value=answer):
      rows = efficiency.run(settings)
    self.assertEqual([(row["seconds"], row["share"], row["questions"]) for row in rows], [(1.0, 1.0, 1)] * 2)

  def test_sums(self):
    text = load_model(self.settings.model)[0].config.text
    record = lambda *seconds: {
      "answers": [{"seconds": each, "tokens": 10, "process": 5, "device": None} for each in seconds]
    }
    rows = efficiency.summarize([record(4.0, 1.0), record(6.0, 3.0)], (1.0, 0.5), text, 2)
    self.assertEqual([row["seconds"] for row in rows], [10.0, 4.0])
    self.assertEqual([row["share"] for row in rows], [1.0, 0.4])
    self.assertEqual([row["process"] for row in rows], [5, 5])
    self.assertIsNone(rows[0]["device"])

  def test_bad_settings(self):
    with self.assertRaisesRegex(ValueError, r"keep_ratio: got 0"):
      efficiency.Settings(keep_ratio=(0.0,))


if __name__ == "__main__":
  absltest.main()
