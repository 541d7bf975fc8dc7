"""Growing pictures through a narrow tower."""

import json
import pathlib
import tempfile

from absl.testing import absltest

from experiments.speed import native_resolution


class NativeResolutionTest(absltest.TestCase):
  def test_report(self):
    with tempfile.TemporaryDirectory() as directory:
      report = native_resolution.run(native_resolution.Settings(side=(16, 32), width=8, output_dir=directory))
      content = json.loads((pathlib.Path(directory) / "native_resolution.json").read_text())
    self.assertEqual(content, report)
    self.assertEqual(report["width"], 8)
    self.assertEqual([row["patches"] for row in report["rows"]], [256, 1024])
    for row in report["rows"]:
      self.assertGreater(row["seconds"], 0)
      # At least the hidden states of all patches.
      self.assertGreater(row["temporary_bytes"], 4 * 8 * row["patches"])

  def test_features_that_are_not_finite(self):
    with absltest.mock.patch.object(native_resolution.np, "isfinite", return_value=native_resolution.np.array(False)):
      with self.assertRaisesRegex(ValueError, "side: the tower's features are not finite at 16"):
        native_resolution.measure(16, 8)

  def test_bad_settings(self):
    with self.assertRaisesRegex(ValueError, r"side: got \[64, 3\], each must be a multiple of 2"):
      native_resolution.Settings(side=(64, 3))
    with self.assertRaisesRegex(ValueError, "width: got 10, must be a multiple of 4"):
      native_resolution.Settings(width=10)


if __name__ == "__main__":
  absltest.main()
