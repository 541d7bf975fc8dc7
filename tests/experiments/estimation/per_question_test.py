"""Files of right answers per question come back as they were written, and others are refused."""

import os
import pathlib
import tempfile

from absl.testing import absltest
import numpy as np

from experiments.estimation import per_question

FOUND = per_question.PerQuestion(
  questions="abc",
  flags=" with --score_layer=1",
  measured="2 CPU cores",
  right={"uniform@0.1": np.asarray([True, False, True]), "all tokens@1": np.asarray([True, True, True])},
  weights={"uniform": np.asarray([0.5, 0.5], np.float32), "question entropy": np.full(2, np.nan, np.float32)},
)


class PerQuestionTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / per_question.FILE

  def test_what_is_written_comes_back(self):
    self.path.write_bytes(per_question.encode(FOUND))
    found = per_question.load(self.path)
    self.assertEqual((found.questions, found.flags, found.measured), (FOUND.questions, FOUND.flags, FOUND.measured))
    for name in ("right", "weights"):
      expected, loaded = getattr(FOUND, name), getattr(found, name)
      self.assertEqual([*loaded], [*expected])
      for row, values in expected.items():
        np.testing.assert_array_equal(loaded[row], values)
    self.assertEqual(per_question.encode(found), self.path.read_bytes())

  def test_as_documented(self):
    self.path.write_bytes(per_question.encode(FOUND))
    held = np.load(self.path)
    right = dict(zip(held["settings"], held["right"]))
    np.testing.assert_array_equal(right["uniform@0.1"], [True, False, True])

  def test_other_files_are_refused(self):
    whole = per_question.encode(FOUND)
    for content in (b"", b"{}", whole[: len(whole) // 2], np.arange(3).tobytes()):
      self.path.write_bytes(content)
      with self.assertRaisesRegex(ValueError, "per_question.npz: not a file of right answers per question"):
        per_question.load(self.path)
    np.savez(self.path, settings=np.asarray([{}], object))
    with self.assertRaisesRegex(ValueError, "per_question.npz: not a file of right answers per question"):
      per_question.load(self.path)
    np.save(self.path.with_suffix(".npy"), np.arange(3))
    os.replace(self.path.with_suffix(".npy"), self.path)
    with self.assertRaisesRegex(ValueError, "per_question.npz: not a file of right answers per question"):
      per_question.load(self.path)

  def test_a_file_that_is_not_there(self):
    with self.assertRaises(FileNotFoundError):
      per_question.load(self.path)


if __name__ == "__main__":
  absltest.main()
