"""Which visual tokens questions see, and when they see more."""

from absl.testing import absltest
import numpy as np

from experiments.digits import batches
from experiments.digits import curriculum
from experiments.digits import embedded


class CurriculumTest(absltest.TestCase):
  def test_hidden_tokens_are_never_those_asked_for(self):
    batch, _ = batches.make_batch(embedded.make_student("qwen2_5_vl"), np.random.default_rng(0), "test", 2, 5)
    self.assertIsNone(batch.seen)
    asked, color = batch.about > 0, batch.cells[:, None, :, 1]
    kinds = [color < batches.GREY, color == batches.GREY, color > batches.GREY]
    for others in (0, 3, 20, 144):
      seen = np.asarray(curriculum.hide(curriculum.start().replace(others=float(others)), batch).seen)
      self.assertTrue(seen[asked].all())
      np.testing.assert_array_equal(seen.sum(-1), np.minimum(asked.sum(-1) + others, 144))
      for first, then in zip(kinds, kinds[1:]):
        self.assertFalse(((seen & ~asked & then).any(-1) & (~seen & first).any(-1)).any())

  def test_every_step_chooses_anew(self):
    batch, _ = batches.make_batch(embedded.make_student("qwen2_5_vl"), np.random.default_rng(0), "test", 1, 5)
    at = curriculum.start().replace(others=5.0)
    seen = [np.asarray(curriculum.hide(at.replace(step=step), batch).seen) for step in (1, 1, 2)]
    np.testing.assert_array_equal(seen[0], seen[1])
    self.assertTrue((seen[0] != seen[2]).any())

  def test_more_is_seen_while_answers_are_right(self):
    at = curriculum.start()
    for _ in range(10):
      at = curriculum.advance(at, 0.3, 144)
    self.assertEqual([int(at.step), float(at.others)], [10, 0])
    for _ in range(1000):
      at = curriculum.advance(at, 0.9, 144)
    self.assertEqual(float(at.others), 144)
    for _ in range(20):
      at = curriculum.advance(at, 0.0, 144)
    self.assertEqual(float(at.others), 144)
    self.assertLess(at.right, 0.6)


if __name__ == "__main__":
  absltest.main()
