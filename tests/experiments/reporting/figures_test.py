"""Figures: text as it is, styles that can be told apart, legends that cover nothing, files that are replaced once drawn."""

import pathlib
import tempfile
from unittest import mock
import warnings

from absl.testing import absltest
from absl.testing import parameterized
from matplotlib import legend
import numpy as np
from PIL import Image

from experiments.reporting import figures
from models.vision_language import View

POINTS = [(5.0, 60.0, 55.0, 66.0), (10.0, 70.0, 68.0, 71.0), (100.0, 90.0, 90.0, 90.0)]
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
      "rule",
      FORMULA,
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

  def test_rules_and_scores_have_titles_of_their_own(self):
    with mock.patch.object(figures, "encode", return_value=b"") as encode:
      figures.kept_tokens(
        self.path, [Image.new("RGB", (64, 48))], [View(0, 2, 3)], np.arange(6.0), np.ones(6, bool), "", "a, b", "c, d"
      )
    titles = [axes.get_title() for axes in encode.call_args.args[0].axes]
    self.assertEqual(titles[:2], ["kept 6 of 6 visual tokens by a, b", "c, d"])

  def test_long_titles_keep_their_beginning_and_their_end(self):
    self.assertEqual(figures._wrapped("question?\nanswer: 4"), "question?\nanswer: 4")
    lines = figures._wrapped("\n".join(map(str, range(99)))).splitlines()
    self.assertEqual(lines, ["0", "1", "2", "3", "…", "95", "96", "97", "98"])

  def test_names_of_series(self):
    figures.save(self.path, figures.curves([figures.Panel(FORMULA, {FORMULA: POINTS, "b": POINTS})], FORMULA))
    self.assert_drawn()
    figures.save(self.path, figures.bars({FORMULA: np.arange(3), "b": np.ones(3)}, FORMULA, FORMULA))
    self.assert_drawn()

  def test_what_fails_leaves_the_figure_that_was_there(self):
    self.draw_kept_tokens("")
    before = self.path.read_bytes()
    with mock.patch.object(figures.Figure, "savefig", side_effect=KeyError), self.assertRaises(KeyError):
      self.draw_kept_tokens("other")
    self.assertEqual(self.path.read_bytes(), before)

  def test_no_two_styles_are_equal(self):
    self.assertLen({*figures.STYLES}, len(figures.STYLES))
    # Within one panel, colours and markers differ.
    first = figures.STYLES[: figures.MOST]
    self.assertLen({color for color, _, _ in first}, figures.MOST)
    self.assertLen({marker for _, marker, _ in first}, figures.MOST)

  def test_a_method_has_one_style_in_all_panels(self):
    panels = [
      figures.Panel("left", {"a": POINTS, "b": POINTS}, level=95.0),
      figures.Panel("right", {"c": POINTS, "b": [(kept, 1 + value, low, 1 + high) for kept, value, low, high in POINTS]}),
    ]
    figure = figures.curves(panels, "right answers, %")
    left, right = figure.axes
    styles = lambda axes: [(bars[0].get_color(), bars[0].get_marker(), bars[0].get_linestyle()) for bars in axes.containers]
    self.assertEqual(styles(left), [figures.STYLES[0], figures.STYLES[1]])
    self.assertEqual(styles(right), [figures.STYLES[2], figures.STYLES[1]])
    for axes in (left, right):
      self.assertEqual(axes.get_xscale(), "log")
      self.assertEqual([tick.get_text() for tick in axes.get_xticklabels()], ["5", "10", "100"])
      self.assertEqual(axes.get_xlabel(), "visual tokens kept, %")
    self.assertEqual([text.get_text() for text in figure.legends[0].get_texts()], ["all tokens", "a", "b", "c"])

  def test_legends_cover_no_axes(self):
    drawn = (
      figures.curves([figures.Panel("", {f"method {number}": POINTS for number in range(figures.MOST)})], "y"),
      figures.bars({f"a long name of estimator {number}": np.ones(8) for number in range(4)}, "head", "weight"),
    )
    for figure in drawn:
      self.assertEmpty([child for axes in figure.axes for child in axes.get_children() if isinstance(child, legend.Legend)])
      figure.draw_without_rendering()
      box = figure.legends[0].get_window_extent()
      self.assertFalse(any(box.overlaps(axes.get_window_extent()) for axes in figure.axes))

  def test_error_bars_are_the_intervals(self):
    figure = figures.curves([figures.Panel("", {"a": POINTS})], "y")
    segments = figure.axes[0].containers[0][2][0].get_segments()
    np.testing.assert_allclose([[low[1], high[1]] for low, high in segments], [point[2:] for point in POINTS])

  def test_more_than_can_be_told_apart(self):
    panel = lambda start, count: figures.Panel("", {f"method {start + number}": POINTS for number in range(count)})
    with self.assertRaisesRegex(ValueError, "panels: at most 8 curves each and 24 methods in all, got 9 methods"):
      figures.curves([panel(0, 9)], "y")
    with self.assertRaisesRegex(ValueError, "got 32 methods"):
      figures.curves([panel(8 * number, 8) for number in range(4)], "y")

  def test_best_keeps_what_is_always_shown(self):
    found = {f"method {number}": [(10.0, float(number), 0.0, 0.0)] for number in range(12)}
    chosen = figures.best(found, most=4, always=("method 0", "missing"))
    self.assertEqual([*chosen], ["method 0", "method 9", "method 10", "method 11"])

  @parameterized.parameters((1, 1), (2, 2), (60, 24))
  def test_views(self, views, drawn):
    """Every view of a few, some of many, and none of single newlines."""
    grids = [View(number, 2, 3, True) for number in range(views)] + [View(views - 1, 1, 0, True)]
    count = sum(view.count for view in grids)
    self.assertEqual(count, 8 * views + 1)
    pictures = [Image.new("RGB", (40, 20))] * views
    kept = np.arange(count) % 2 == 0
    figures.kept_tokens(self.path, pictures, grids, np.arange(count), kept, "title", "hawk", "HAWK scores")
    # Inches of a view that is half as high as wide, at 160 dots per inch.
    self.assertAlmostEqual(Image.open(self.path).height, 160 * (0.8 + drawn * (0.5 + 4.4 / 2)), delta=1)


if __name__ == "__main__":
  absltest.main()
