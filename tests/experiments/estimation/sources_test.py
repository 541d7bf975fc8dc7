"""Where head importance comes from, as flags say it."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.estimation import sources
from hawk_jax import importance


class SourcesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    directory = self.enter_context(tempfile.TemporaryDirectory())
    self.path = str(pathlib.Path(directory) / "w.json")
    self.scores = {"a": [3.0, 1.0], "b": [0.0, 1.0], "same": [1.0, 1.0]}
    importance.save(self.path, [3, 1], scores=self.scores)

  def test_load(self):
    whole, part = sources.load(self.path, 2), sources.load(f"{self.path}#b", 2)
    np.testing.assert_allclose(whole.weights, [0.75, 0.25])
    np.testing.assert_array_equal(part.weights, [0, 1])
    self.assertEqual(part.record, [0.0, 1.0])
    asked = sources.load("question:entropy", 2)
    np.testing.assert_array_equal(asked.weights, [0.5, 0.5])
    self.assertEqual((asked.head_weights, asked.record), ("entropy", "entropy"))

  def test_by_dataset(self):
    # Heads that have the same score on a data set have no weights from it.
    self.assertEqual(sources.by_dataset("mine", self.path), {"mine on a": f"{self.path}#a", "mine on b": f"{self.path}#b"})
    for source in ("question:mass", "uniform", "preset:qwen2.5-vl-7b", f"{self.path}#a"):
      self.assertEmpty(sources.by_dataset("mine", source))

  def test_parse(self):
    self.assertEqual(sources.parse(["a=x.json", "b=question:mass"]), {"a": "x.json", "b": "question:mass"})

  @parameterized.parameters(["a"], ["=x"], ["a=x", "a=y"], ["taken=x"])
  def test_malformed(self, *arguments):
    with self.assertRaisesRegex(ValueError, "importance: got .*, must be NAME=SOURCE"):
      sources.parse(arguments, taken=("taken",))

  @parameterized.parameters(
    ("question:sum", "importance: got 'question:sum', allowed are question:mass, question:entropy"),
    ("#c", "importance: .*w.json has no scores on 'c', but on a, b, same"),
    ("preset:none", "importance: unknown preset 'none'"),
    ("no.json", "importance: cannot read 'no.json'"),
  )
  def test_bad_sources(self, source, message):
    with self.assertRaisesRegex(ValueError, f"^{message}"):
      sources.load(self.path + source if source.startswith("#") else source, 2)


if __name__ == "__main__":
  absltest.main()
