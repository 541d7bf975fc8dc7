"""The digits task: answers follow from the picture, and test handwriting is new."""

import collections

from absl.testing import absltest
import numpy as np
from PIL import Image

from experiments.digits import embedded
from experiments.digits import handwriting
from experiments.digits import task


class DigitsTest(absltest.TestCase):
  def test_splits_share_no_handwriting(self):
    ranges = [set(range(*split)) for split in handwriting.SPLITS.values()]
    self.assertEqual(sum(map(len, ranges)), len(set.union(*ranges)))
    self.assertLen(handwriting.originals()[1], max(max(split) for split in ranges) + 1)
    for split, (low, high) in handwriting.SPLITS.items():
      scene = task.make_scene(np.random.default_rng(0), split)
      glyphs = scene.glyphs[scene.digits >= 0]
      if scene.varied:  # training has VARIANTS versions of each of its digits
        varied = handwriting.varied()
        self.assertLen(varied, handwriting.VARIANTS * (high - low))
        np.testing.assert_array_equal(varied[: high - low], handwriting.originals()[0][low:high])
        self.assertBetween(glyphs.max(), 0, len(varied) - 1)
        labels = handwriting.originals()[1][low + glyphs % (high - low)]
        np.testing.assert_array_equal(labels, scene.digits[scene.digits >= 0])
      else:
        self.assertTrue(((glyphs >= low) & (glyphs < high)).all())
      self.assertEqual(scene.varied, split == "train")

  def test_answers_follow_from_the_picture(self):
    for number in range(50):
      rng = np.random.default_rng(number)
      scene = task.make_scene(rng, "test")
      names = [*task.COLORS, "grey", "nothing"]
      labels = handwriting.originals()[1]
      filled = scene.digits >= 0
      np.testing.assert_array_equal(labels[scene.glyphs[filled]], scene.digits[filled])
      for question in task.questions(scene, rng):
        shown = [(names[scene.colors[cell]], scene.digits[cell]) for cell in question.cells]
        words = question.text.lower().replace("?", " ").replace(".", " ").replace(",", " ").split()
        if question.kind == "color_to_digit":
          self.assertIn(shown[0][0], words)
          self.assertEqual(np.sum(scene.colors == names.index(shown[0][0])), 1)
          self.assertEqual(question.answer, str(shown[0][1]))
        elif question.kind == "digit_to_color":
          self.assertIn(str(shown[0][1]), words)
          colored = (scene.colors >= 0) & (scene.colors < 8)
          self.assertEqual(np.sum(colored & (scene.digits == shown[0][1])), 1)
          self.assertEqual(question.answer, shown[0][0])
        elif question.kind == "beside":
          (row, column), (other_row, other) = question.cells
          self.assertIn(shown[0][0], words)
          self.assertEqual(row, other_row)
          self.assertEqual(other - column, 1 if "right" in words else -1)
          self.assertEqual(question.answer, str(shown[1][1]))
        elif question.kind == "count":
          self.assertEqual(question.answer, str(np.sum(scene.colors == names.index(shown[0][0]))))
        else:
          self.assertEqual(question.cells, (scene.box,))
          self.assertEqual(question.answer, str(scene.digits[scene.box]))

  def test_dataset_repeats_and_takes_the_kinds_in_turn(self):
    first, again = task.dataset("test", 10), task.dataset("test", 10)
    for (picture, question), (other, same) in zip(first, again):
      np.testing.assert_array_equal(picture, other)
      self.assertEqual(question, same)
    self.assertEqual(collections.Counter(question.kind for _, question in first), dict.fromkeys(task.KINDS, 2))
    self.assertFalse(np.array_equal(first[0][0], task.dataset("calibration", 1)[0][0]))

  def test_every_answer_is_one_token(self):
    tokenizer = embedded.make_tokenizer(embedded.ARCHITECTURES["qwen2_5_vl"])
    for answer in [*task.COLORS, *map(str, range(10))]:
      self.assertLen(tokenizer.encode(answer).ids, 1)

  def test_committed_picture(self):
    picture, _ = task.demo_picture()
    np.testing.assert_array_equal(np.asarray(Image.open(embedded.DIRECTORY / "picture.png")), picture)


if __name__ == "__main__":
  absltest.main()
