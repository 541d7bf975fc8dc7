"""Which visual tokens the best scores keep."""

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from hawk_jax import selectors
from tests.reference import numpy_hawk


def numpy_top_k(scores, mask, counts, keep_count):
  """Row by row, [B, K] with -1 in unused slots."""
  kept = np.full([len(scores), keep_count], -1, np.int32)
  for row, row_scores in enumerate(scores):
    real = np.flatnonzero(mask[row])
    chosen = real[numpy_hawk.top_k(row_scores[real], min(int(counts[row]), keep_count))]
    kept[row, : len(chosen)] = chosen
  return kept


def top_k(scores, mask, counts, keep_count):
  scores, counts = jnp.asarray(scores, jnp.float32), jnp.asarray(counts, jnp.int32)
  return np.asarray(selectors.top_k(scores, jnp.asarray(mask), counts, keep_count))


class TopKTest(parameterized.TestCase):
  @parameterized.product(seed=[0, 1, 2], levels=[2, 5, None], padding=["last", "anywhere"])
  def test_equals_numpy(self, seed, levels, padding):
    """With few score levels nearly everything is a tie."""
    rng = np.random.default_rng(seed)
    batch, visual, keep_count = 6, 50, 20
    scores = rng.normal(size=[batch, visual]) if levels is None else rng.integers(-levels, levels, [batch, visual])
    scores = scores.astype(np.float32)
    if padding == "last":
      mask = np.arange(visual) < rng.integers(0, visual + 1, [batch, 1])
    else:
      mask = rng.random([batch, visual]) < 0.5
    counts = rng.integers(0, keep_count + 1, [batch])
    expected = numpy_top_k(scores, mask, counts, keep_count)
    np.testing.assert_array_equal(top_k(scores, mask, counts, keep_count), expected)

  def test_ties_go_to_the_lower_index(self):
    scores = [[1, 2, 2, 1, 2, 1, 1]]
    mask = np.ones([1, 7], bool)
    np.testing.assert_array_equal(top_k(scores, mask, [2], 2), [[1, 2]])
    np.testing.assert_array_equal(top_k(scores, mask, [5], 5), [[0, 1, 2, 3, 4]])
    np.testing.assert_array_equal(top_k(np.zeros([1, 7]), mask, [3], 3), [[0, 1, 2]])

  def test_zeros_of_either_sign_tie(self):
    np.testing.assert_array_equal(top_k([[-0.0, 0.0, -0.0, 0.0]], np.ones([1, 4], bool), [2], 2), [[0, 1]])

  def test_padding_is_never_chosen(self):
    scores = [[-5, 9, -1e30, 9, -2, 9]]
    mask = [[True, False, True, False, True, False]]
    np.testing.assert_array_equal(top_k(scores, mask, [2], 4), [[0, 4, -1, -1]])
    np.testing.assert_array_equal(top_k(scores, mask, [4], 4), [[0, 2, 4, -1]])

  def test_unused_slots_hold_minus_one(self):
    scores = np.arange(12, dtype=np.float32).reshape(3, 4)
    kept = top_k(scores, np.array([[True] * 4, [True] * 4, [False] * 4]), [1, 0, 3], 3)
    np.testing.assert_array_equal(kept, [[3, -1, -1], [-1, -1, -1], [-1, -1, -1]])
    self.assertEqual(kept.dtype, np.int32)

  def test_no_visual_slots(self):
    self.assertEqual(top_k(np.zeros([2, 0]), np.zeros([2, 0], bool), [0, 0], 0).shape, (2, 0))


if __name__ == "__main__":
  absltest.main()
