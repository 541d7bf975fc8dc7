"""A sweep over importance arrays equals scoring with each of them alone."""

from absl.testing import absltest
import numpy as np

from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax import sweep


class SweepTest(absltest.TestCase):
  def test_equals_one_by_one(self):
    rng = np.random.default_rng(0)
    scores = rng.standard_normal([3, 4, 20]).astype(np.float32)
    mask = np.arange(20) < np.asarray([[20], [11], [2]])
    counts = np.asarray([7, 5, 2], np.int32)
    weights = rng.dirichlet(np.ones(4), 50).astype(np.float32)
    many = np.asarray(sweep.select_many(scores, mask, counts, weights, keep_count=8))
    self.assertEqual(many.shape, (50, 3, 8))
    normalized = scoring.normalize(scores, mask)
    for number in range(50):
      one = selectors.top_k(scoring.fuse(normalized, weights[number]), mask, counts, 8)
      np.testing.assert_array_equal(many[number], one)
    self.assertGreater(len({row.tobytes() for row in many}), 10)
    before = sweep.select_many._cache_size()
    sweep.select_many(scores, mask, counts, weights[::-1].copy(), keep_count=8)
    self.assertEqual(sweep.select_many._cache_size(), before)


if __name__ == "__main__":
  absltest.main()
