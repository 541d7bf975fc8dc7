"""The picture of kept tokens: every view of a few, some of many, and none of single newlines."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments.reporting import figures
from models.vision_language import View


class KeptTokensTest(parameterized.TestCase):
  @parameterized.parameters((1, 1), (2, 2), (60, 24))
  def test_height(self, views, drawn):
    grids = [View(number, 2, 3, True) for number in range(views)] + [View(views - 1, 1, 0, True)]
    count = sum(view.count for view in grids)
    self.assertEqual(count, 8 * views + 1)
    pictures = [Image.new("RGB", (40, 20))] * views
    with tempfile.TemporaryDirectory() as directory:
      path = pathlib.Path(directory) / "kept.png"
      figures.kept_tokens(path, pictures, grids, np.arange(count), np.arange(count) % 2 == 0, "title", "hawk, HAWK scores")
      height = Image.open(path).height
    # Inches of a view that is half as high as wide, at 110 dots per inch.
    self.assertAlmostEqual(height, 110 * (0.8 + drawn * (0.5 + 4.4 / 2)), delta=1)


if __name__ == "__main__":
  absltest.main()
