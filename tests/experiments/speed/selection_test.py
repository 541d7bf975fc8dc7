"""The command that times selectors, at a small size."""

import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.speed import selection
from hawk_jax import selectors
from tests.reference import checks
from tests.reference import qwen2_5_vl


class SelectionTest(absltest.TestCase):
  def test_every_rule_is_measured_beside_what_it_saves(self):
    model, _ = checks.load(qwen2_5_vl, "gqa")
    output = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.enter_context(mock.patch.object(selection.registry, "published", return_value=model))
    settings = selection.Settings(side=8, keep_count=13, text_tokens=4, rounds=1, layers=3, output_dir=str(output))
    found = selection.run(settings)
    text = (output / "selection.md").read_text()
    with mock.patch.object(selection, "rules", side_effect=AssertionError):
      self.assertEqual(selection.run(settings), found)
    self.assertEqual((output / "selection.md").read_text(), text)
    picked = [name for name, selector in selectors.SELECTORS.items() if selector.stage == "input"]
    self.assertContainsSubset(picked, found["seconds"])
    self.assertTrue(all(seconds > 0 for seconds in (*found["seconds"].values(), found["whole"], found["sensitivity"])))
    self.assertAlmostEqual(found["saved"], found["whole"] - found["pruned"])
    self.assertRegex(text, r"13 of 64 visual tokens, width 64, 4 text tokens; .* 3 decoder layers .* medians of 1 rounds")
    for name in (*found["seconds"], "`zooprune` needs 64 derivatives"):
      self.assertIn(f" {name} ", text)

  def test_features_are_alike_near_each_other(self):
    features = selection.make_features(9, 64)
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    cosine = unit @ unit.T
    self.assertGreater(cosine[0, 1], cosine[0, 80])
    self.assertGreater(cosine.mean(), 0.2)

  def test_bad_settings(self):
    with self.assertRaisesRegex(ValueError, "keep_count: got 16, must be less than the 16 tokens"):
      selection.Settings(side=4, keep_count=16)
    with self.assertRaisesRegex(ValueError, "model_config: got 'x', allowed are"):
      selection.Settings(model_config="x")


if __name__ == "__main__":
  absltest.main()
