"""Files in VLMEvalKit's layout: what is read, and what is reported about single rows."""

import base64
import itertools
import struct
from unittest import mock
import zlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments.evaluation.benchmarks import tsv
from tests.reference import tsv_files
from tests.reference.tsv_files import encoded


class TsvTest(tsv_files.TestCase):
  def test_pictures(self):
    first, second = encoded(12, 8), encoded(8, 8, shade=1)
    Image.new("RGB", (6, 4)).save(self.directory / "file.png")
    table = tsv.read(
      self.write(
        "x",
        self.row("a", image=first),
        self.row("b", image="a"),
        self.row("c", image=str([first, second])),
        self.row("d", image="", question='two\nlines\t"quoted"', answer="y"),
      )
    )
    self.assertEqual([row.sizes for row in table.rows], [((12, 8),), ((12, 8),), ((12, 8), (8, 8))])
    self.assertEqual(table.skipped, 1)
    pictures = [table.pictures(row) for row in table.rows]
    np.testing.assert_array_equal(pictures[0][0], pictures[1][0])
    self.assertEqual([picture.size for picture in pictures[2]], [(12, 8), (8, 8)])
    table = tsv.read(
      self.write(
        "y",
        {"index": 1, "image_path": "file.png", "question": "two\nlines", "answer": "a\tb"},
        {"index": 2, "image_path": "['file.png', 'file.png']", "question": "Q", "answer": "b"},
      )
    )
    self.assertEqual([row.sizes for row in table.rows], [((6, 4),), ((6, 4), (6, 4))])
    self.assertEqual((table.rows[0].fields["question"], table.rows[0].fields["answer"]), ("two\nlines", "a\tb"))
    self.assertLen(table.pictures(table.rows[1]), 2)

  def test_a_row_without_a_picture_among_files(self):
    Image.new("RGB", (6, 4)).save(self.directory / "file.png")
    row = {"image_path": "file.png", "question": "Q", "answer": "a"}
    table = tsv.read(self.write("x", {"index": 1, **row}, {"index": 2, **row, "image_path": ""}))
    self.assertEqual([row.problem for row in table.rows], [None, None])
    self.assertEqual([len(table.pictures(row)) for row in table.rows], [1, 0])

  def test_limit(self):
    path = self.write("x", *(self.row(index, image=encoded() if index < 2 else "0") for index in range(5)))
    self.assertLen(tsv.read(path, limit=3).rows, 3)
    self.assertLen(tsv.read(path).rows, 5)

  @parameterized.parameters(
    ([dict(index=0, image="x" * 80, question="Q", answer="a")], "row 1 .index 0., column image: the content is not a pic"),
    ([dict(index=0, image="?" * 80, question="Q", answer="a")], "column image: is not base64"),
    (
      [dict(index=0, image=base64.b64encode(b"no picture" * 20).decode(), question="Q", answer="a")],
      "x.tsv: row 1 .index 0., column image: .*not a picture",
    ),
    ([dict(index=0, image="7", question="Q", answer="a")], "column image: '7' is neither base64 of a picture nor"),
    ([dict(index=0, image_path="none.png", question="Q", answer="a")], "column image_path: there is no file none.png"),
    ([dict(index=0, image=encoded(), question="Q", answer="")], "row 1 .index 0., column answer: is empty"),
    (
      [dict(index=0, image=encoded(), question="Q", A="a", B="b", answer="C")],
      "column answer: is 'C', the row's options are A, B",
    ),
    ([dict(index=0, image_path="a" * 256 + ".png", question="Q", answer="a")], "there is no file a*.png beside x.tsv"),
    ([dict(index=0, image_path="a\0.png", question="Q", answer="a")], "column image_path: there is no file"),
    ([dict(index=0, image_path="[]", question="Q", answer="a")], "column image_path: there is no file"),
    ([dict(index=0, video_path="none.mp4", question="Q", answer="C")], "column video_path: there is no file none.mp4"),
  )
  def test_problems_of_a_row(self, rows, message):
    table = tsv.read(self.write("x", *rows))
    self.assertRegex(table.rows[0].problem, message)

  def test_a_truncated_picture_is_found_on_reading(self):
    content = base64.b64decode(encoded(64, 64))
    table = tsv.read(self.write("x", self.row(image=base64.b64encode(content[:-400]).decode())))
    with self.assertRaisesRegex(tsv.RowError, "x.tsv: row 1 .index 0., column image: .*truncated"):
      table.pictures(table.rows[0])

  def test_files_outside_the_directory_need_a_flag(self):
    (self.directory / "below").mkdir()
    Image.new("RGB", (6, 4)).save(self.directory / "secret.png")
    (self.directory / "below" / "link.png").symlink_to("../secret.png")
    (self.directory / "below" / "clip.mp4").symlink_to("../secret.png")
    cells = ("../secret.png", str(self.directory / "secret.png"), "link.png", "x/../../secret.png", "['link.png']")
    rows = [dict(index=at, image_path=cell, question="Q", answer="a") for at, cell in enumerate(cells)]
    table = tsv.read(self.write("below/x", *rows))
    for at, row in enumerate(table.rows):
      message = "there is no file" if at == 3 else "is outside the directory of x.tsv; --allow_outside_paths permits it"
      self.assertRegex(row.problem, f"x.tsv: row {at + 1} .index {at}., column image_path: .*{message}")
      with self.assertRaisesRegex(tsv.RowError, message):
        table.pictures(row)
    table = tsv.read(self.write("below/x", *rows), outside=True)
    self.assertEqual([len(row.sizes) for row in table.rows], [1, 1, 1, 0, 1])
    self.assertEqual(table.pictures(table.rows[0])[0].size, (6, 4))
    path = self.write("below/y", dict(index=0, video_path="clip.mp4", question="Q", answer="a"))
    self.assertRegex(tsv.read(path).rows[0].problem, "column video_path: clip.mp4 is outside the directory of y.tsv")
    self.assertNotRegex(str(tsv.read(path, outside=True).rows[0].problem), "outside|there is no file")

  @parameterized.parameters(zlib.error("bad"), struct.error("bad"), ZeroDivisionError("bad"), MemoryError("bad"))
  def test_whatever_a_decoder_raises_ends_one_row(self, error):
    (self.directory / "clip.mp4").touch()
    path = self.write("x", self.row("a", image=encoded()), self.row("b", image=encoded(shade=1)))
    read, calls = tsv.pictures.open_picture, itertools.count()
    fails_first = lambda source: read(source) if next(calls) else self.fail_with(error)
    table = tsv.read(path)
    with mock.patch.object(tsv.pictures, "open_picture", fails_first):
      with self.assertRaisesRegex(tsv.RowError, "x.tsv: row 1 .index a., column image: .*bad"):
        table.pictures(table.rows[0])
      self.assertLen(table.pictures(table.rows[1]), 1)
    with mock.patch.object(tsv.pictures, "picture_size", side_effect=error):
      self.assertRegex(tsv.read(path).rows[0].problem, "row 1 .index a., column image: cannot be decoded .*bad")
    video = self.write("y", dict(index=0, video_path="clip.mp4", question="Q", answer="a"))
    with mock.patch.object(tsv.video_lib, "probe", side_effect=error):
      self.assertRegex(tsv.read(video).rows[0].problem, "row 1 .index 0., column video_path: cannot be decoded .*bad")

  def fail_with(self, error):
    raise error


if __name__ == "__main__":
  absltest.main()
