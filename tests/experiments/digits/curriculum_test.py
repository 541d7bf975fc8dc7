"""Which visual tokens questions see, and when they see more."""

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import batches
from experiments.digits import curriculum
from experiments.digits import embedded
from experiments.digits import task


class CurriculumTest(absltest.TestCase):
  def test_hidden_tokens_are_never_those_asked_for(self):
    batch = batches.make_batch(embedded.make_student("qwen2_5_vl"), np.random.default_rng(0), "test", 2, 5)
    self.assertIsNone(batch.seen)
    asked, color = batch.about > 0, batch.cells[:, None, :, 1]
    kinds = [color < batches.GREY, color == batches.GREY, color > batches.GREY]
    for others in (0, 3, 20, 144):
      at = curriculum.start()
      seen = np.asarray(curriculum.hide(at.replace(others=jnp.full_like(at.others, others)), batch).seen)
      self.assertTrue(seen[asked].all())
      np.testing.assert_array_equal(seen.sum(-1), np.minimum(asked.sum(-1) + others, 144))
      for first, then in zip(kinds, kinds[1:]):
        self.assertFalse(((seen & ~asked & then).any(-1) & (~seen & first).any(-1)).any())

  def test_every_step_chooses_anew(self):
    batch = batches.make_batch(embedded.make_student("qwen2_5_vl"), np.random.default_rng(0), "test", 1, 5)
    at = curriculum.start().replace(others=jnp.full(len(task.KINDS), 5.0))
    seen = [np.asarray(curriculum.hide(at.replace(step=step), batch).seen) for step in (1, 1, 2)]
    np.testing.assert_array_equal(seen[0], seen[1])
    self.assertTrue((seen[0] != seen[2]).any())

  def test_each_kind_of_question_sees_more_while_its_answers_are_right(self):
    batch = batches.make_batch(embedded.make_student("qwen2_5_vl"), np.random.default_rng(0), "test", 2, 12)
    never = batch.replace(kinds=np.where(batch.kinds == 4, 3, batch.kinds))  # nobody asks for the box
    self.assertEqual({*never.kinds.ravel()}, {0, 1, 2, 3})
    advance = jax.jit(curriculum.advance)
    at = curriculum.start()
    for _ in range(100):
      at = advance(at, never, never.kinds == 1)
    np.testing.assert_allclose(at.right, [0, 1 - 0.95**100, 0, 0, 0], rtol=1e-4)
    self.assertEqual([int(at.step), *(at.others > 0)], [100, False, True, False, False, False])
    seen = np.asarray(curriculum.hide(at, batch).seen).sum(-1) - (batch.about > 0).sum(-1)
    np.testing.assert_array_equal(seen > 0, batch.kinds == 1)
    for _ in range(300):
      at = advance(at, never, np.ones_like(never.kinds, bool))
    np.testing.assert_array_equal(at.others, [144, 144, 144, 144, 0])
    for _ in range(20):
      at = advance(at, batch, np.zeros_like(never.kinds, bool))
    np.testing.assert_array_equal(at.others, [144, 144, 144, 144, 0])
    self.assertTrue((at.right < 0.5).all())


if __name__ == "__main__":
  absltest.main()
