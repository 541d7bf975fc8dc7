"""Figures show text as it is, and replace a file only once they are drawn."""

import pathlib
import tempfile
from unittest import mock
import warnings

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments.reporting import figures
from models.vision_language import View

FORMULA = r"$\frac{1}{ $x^"  # which Matplotlib cannot read


class FiguresTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / "figure.png"

  def draw_kept_tokens(self, title):
    figures.kept_tokens(
      self.path,
      [Image.new("RGB", (64, 48))],
      [View(0, 2, 3)],
      np.arange(6.0),
      np.arange(6) % 2 == 0,
      title,
      f"rule, {FORMULA}",
    )

  def assert_drawn(self):
    self.assertGreater(Image.open(self.path).size, (400, 300))

  @parameterized.parameters(
    FORMULA, "$" * 99, "", "tab\tnull\0 \x1b[31m", "你好 😀 שלום", "word " * 999, "x" * 9999, "line\n" * 99
  )
  def test_titles(self, title):
    with warnings.catch_warnings():
      warnings.simplefilter("error")  # such as that of Matplotlib for a title that leaves no room for the axes
      self.draw_kept_tokens(title)
    self.assert_drawn()

  def test_long_titles_keep_their_beginning_and_their_end(self):
    self.assertEqual(figures._wrapped("question?\nanswer: 4"), "question?\nanswer: 4")
    lines = figures._wrapped("\n".join(map(str, range(99)))).splitlines()
    self.assertEqual(lines, ["0", "1", "2", "3", "…", "95", "96", "97", "98"])

  def test_names_of_series(self):
    figures.lines(self.path, [0.1, 0.2], {FORMULA: [1, 2], "b": [2, 1]}, FORMULA, FORMULA)
    self.assert_drawn()
    figures.bars(self.path, {FORMULA: np.arange(3), "b": np.ones(3)}, FORMULA, FORMULA)
    self.assert_drawn()

  def test_what_fails_leaves_the_figure_that_was_there(self):
    self.draw_kept_tokens("")
    before = self.path.read_bytes()
    with mock.patch.object(figures.Figure, "savefig", side_effect=KeyError), self.assertRaises(KeyError):
      self.draw_kept_tokens("other")
    self.assertEqual(self.path.read_bytes(), before)


if __name__ == "__main__":
  absltest.main()
