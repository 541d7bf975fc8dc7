"""bfloat16 beside float32 at a tiny size."""

import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest

from experiments.speed import precision
from tests.reference import qwen2_5_vl as reference


class PrecisionTest(absltest.TestCase):
  def test_report(self):
    config = json.loads(json.dumps(reference.CONFIGS["gqa"]))
    config["text_config"]["num_hidden_layers"] = config["vision_config"]["depth"] = 1
    with tempfile.TemporaryDirectory() as holder:
      directory = pathlib.Path(holder)
      (directory / "tiny").mkdir()
      (directory / "tiny" / "config.json").write_text(json.dumps(config))
      settings = precision.Settings(
        preset="tiny", pictures=2, side=112, text_tokens=12, keep_ratio=(0.5,), output_dir=str(directory / "out")
      )
      with mock.patch.object(precision, "_CONFIGS", directory):
        report = precision.run(settings)
      self.assertEqual(json.loads((directory / "out" / "precision.json").read_text()), report)
    self.assertLen(report["pictures"], 2)
    for picture in report["pictures"]:
      self.assertEqual(picture["visual_tokens"], 16)
      self.assertBetween(picture["logits"]["ours"], 1e-5, 5e-2)  # rounded, and not by much
      self.assertBetween(picture["kept"]["0.5"], 0.5, 1)

  def test_a_baseline_without_torch_is_refused_before_weights_are_drawn(self):
    with mock.patch.object(precision.comparison, "find_spec", return_value=None):
      with self.assertRaisesRegex(ValueError, "^baseline: transformers needs torch, which is not installed$"):
        precision.Settings(baseline="transformers")

  def test_same(self):
    self.assertEqual(precision._same([0, 1, 4, 6, -1], [0, 1, 4, 5, -1], text=2), 0.5)


if __name__ == "__main__":
  absltest.main()
