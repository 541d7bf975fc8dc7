"""The ladder of static sizes."""

from absl.testing import absltest
from absl.testing import parameterized

from hawk_jax import buckets


class BucketTest(parameterized.TestCase):
  @parameterized.parameters(1, 4, 16, 20, 100, 128)
  def test_ladder(self, minimum):
    """Every rung holds its sizes, is a rung itself, wastes at most 12.5 % above the minimum, and none lies lower."""
    previous = minimum
    for size in range(1, 20_000):
      rung = buckets.bucket(size, minimum)
      self.assertGreaterEqual(rung, max(size, minimum))
      if size > minimum:
        self.assertLessEqual(rung, 1.125 * size)
      self.assertGreaterEqual(rung, previous)
      self.assertEqual(buckets.bucket(rung, minimum), rung)
      previous = rung

  def test_rungs(self):
    self.assertEqual(
      sorted({buckets.bucket(size) for size in range(65)}),
      [0, 16, 18, 20, 22, 24, 26, 28, 30, 32, 36, 40, 44, 48, 52, 56, 60, 64],
    )

  def test_eight_rungs_an_octave(self):
    for exponent in range(4, 16):
      rungs = {buckets.bucket(size) for size in range(2**exponent + 1, 2 ** (exponent + 1) + 1)}
      self.assertLen(rungs, 8)

  def test_finer_ladder(self):
    self.assertEqual([buckets.bucket(size, 4, steps=16) for size in (3, 17, 32, 33, 49, 65)], [4, 17, 32, 34, 50, 68])

  def test_nothing_has_a_rung_of_its_own(self):
    self.assertEqual(buckets.bucket(0), 0)
    self.assertEqual(buckets.bucket(1), 16)
    self.assertEqual(buckets.bucket(1, 64), 64)


if __name__ == "__main__":
  absltest.main()
