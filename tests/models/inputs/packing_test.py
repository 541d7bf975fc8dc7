"""The curve through pictures."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from models.inputs import packing


class ZOrderTest(parameterized.TestCase):
  def test_blocks_come_one_after_the_other(self):
    np.testing.assert_array_equal(
      packing.z_order([[(4, 4, False)]]).reshape(4, 4), [[0, 1, 4, 5], [2, 3, 6, 7], [8, 9, 12, 13], [10, 11, 14, 15]]
    )

  def test_views_and_slices_come_one_after_the_other(self):
    found = packing.z_order([[(1, 1, False), (2, 2, True)], [(2, 1, False)]])
    np.testing.assert_array_equal(found, [0, 1, 2, 5, 3, 4, 6, 7, 8])

  @parameterized.parameters((12, 12, 36), (24, 24, 64), (13, 7, 9), (5, 40, 20))
  def test_equal_parts_are_compact(self, rows, columns, parts):
    """The tokens of a part lie in a square of at most four times its area, or nearly so."""
    place = np.indices((rows, columns)).reshape(2, -1).T
    part = packing.z_order([[(rows, columns, False)]]) * parts // (rows * columns)
    self.assertEqual({*np.unique(part)}, {*range(parts)})
    spread = [np.ptp(place[part == number], axis=0).sum() for number in range(parts)]
    self.assertLess(np.mean(spread), 4 * np.sqrt(rows * columns / parts))


if __name__ == "__main__":
  absltest.main()
