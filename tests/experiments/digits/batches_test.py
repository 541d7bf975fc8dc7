"""Batches for training: what they ask, and what is removed from them."""

from absl.testing import absltest
import numpy as np

from experiments.digits import batches
from experiments.digits import embedded
from experiments.digits import task


class BatchesTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.student = embedded.make_student("qwen2_5_vl")
    cls.batch = batches.make_batch(cls.student, np.random.default_rng(0), "test", 6, 4)

  def test_questions_and_answers(self):
    self.assertEqual(self.batch.kinds.shape, (6, 4))
    self.assertTrue(set(self.batch.kinds.ravel()) <= {*range(len(task.KINDS))})
    self.assertEqual(self.batch.tokens.shape, (6, 4, batches.QUESTION_LENGTH))
    answers = {*task.COLORS, *map(str, range(10))}
    for tokens, targets, (before, last) in zip(
      *(getattr(self.batch, name).reshape(24, -1) for name in ("tokens", "targets", "target_index"))
    ):
      self.assertEqual((last, tokens[last]), (before + 1, targets[0]))
      self.assertFalse(tokens[last + 1 :].any())
      self.assertTrue(self.student.tokenizer.decode(tokens[:last]).rstrip().endswith("assistant"))
      self.assertIn(self.student.tokenizer.decode(targets[:1]), answers)
      self.assertEqual(self.student.tokenizer.id_to_token(targets[1]), "<|im_end|>")

  def test_labels_are_those_of_the_scene(self):
    scene = task.make_scene(np.random.default_rng(0), "test")  # the first of the batch
    cells, left = self.batch.cells[0].reshape(12, 12, 3), self.batch.left[0].reshape(12, 12, 2)
    np.testing.assert_array_equal(cells[..., 0], np.where(scene.digits < 0, 10, scene.digits))
    np.testing.assert_array_equal(cells[..., 1], np.where(scene.colors < 0, 9, scene.colors))
    self.assertEqual([tuple(place) for place in np.argwhere(cells[..., 2])], [scene.box])
    np.testing.assert_array_equal(left[:, 1:], cells[:, :-1, :2])
    np.testing.assert_array_equal(left[:, 0], np.broadcast_to([10, 9], (12, 2)))

  def test_about_names_the_cells_of_the_answer(self):
    np.testing.assert_allclose(self.batch.about.sum(-1), 1, rtol=1e-6)
    for row, kinds, about, targets in zip(range(6), self.batch.kinds, self.batch.about, self.batch.targets):
      for kind, wanted, (answer, _) in zip(kinds, about, targets):
        shown, answer = self.batch.cells[row][wanted > 0], self.student.tokenizer.decode([answer])
        if task.KINDS[kind] == "digit_to_color":
          self.assertEqual([list(task.COLORS)[color] for color in shown[:, 1]], [answer])
        elif task.KINDS[kind] == "count":
          self.assertEqual(str(len(shown)), answer)
        else:
          self.assertIn(answer, map(str, shown[:, 0]))

  def test_dropped_tokens_are_never_those_asked_for(self):
    dropped = batches.drop_tokens(self.batch, np.random.default_rng(1)).inputs.prompt.visual_order < 0
    self.assertTrue(dropped.any())
    self.assertFalse(dropped.all(axis=1).any())
    self.assertFalse((dropped & (self.batch.about.sum(axis=1) > 0)).any())
    self.assertFalse((self.batch.inputs.prompt.visual_order < 0).any())

  def test_more_questions_than_pictures_have(self):
    with self.assertRaisesRegex(ValueError, "questions: got 100, pictures have fewer"):
      batches.make_batch(self.student, np.random.default_rng(0), "test", 1, 100)


if __name__ == "__main__":
  absltest.main()
