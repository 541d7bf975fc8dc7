"""The committed benchmark files are what the command writes."""

import base64
import csv
import io
import pathlib
import tempfile

from absl.testing import absltest
import numpy as np
from PIL import Image

from experiments import digits_benchmark
from experiments.digits import embedded
from models.inputs import video

FILES = embedded.DIRECTORY.parent / "benchmark_files"
QUESTIONS, CLIPS = 6, 2


def rows(path):
  with open(path, newline="") as file:
    return list(csv.DictReader(file, delimiter="\t"))


class DigitsBenchmarkTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.pictures, cls.videos = digits_benchmark.run(
      digits_benchmark.Settings(questions=QUESTIONS, clips=CLIPS, output_dir=str(cls.directory))
    )

  def test_pictures(self):
    written, committed = rows(self.pictures), rows(FILES / "digits.tsv")
    self.assertLen(written, QUESTIONS)
    for row, expected in zip(written, committed):
      # Pixels rather than bytes: other versions of Pillow compress differently.
      pixels, wanted = (np.asarray(Image.open(io.BytesIO(base64.b64decode(each.pop("image"))))) for each in (row, expected))
      np.testing.assert_array_equal(pixels, wanted)
      self.assertEqual(row, expected)

  def test_videos(self):
    written = rows(self.videos)
    self.assertEqual(written, rows(FILES / "digits_video.tsv")[:CLIPS])
    for row in written:
      pixels, wanted = (
        video.read(directory / row["video_path"], fps=8).frames.astype(float) for directory in (self.directory, FILES)
      )
      self.assertEqual(pixels.shape, (24, 192, 192, 3))
      # Encoders differ a little from machine to machine.
      self.assertLess(np.abs(pixels - wanted).mean(), 1.0)

  def test_digits_move_one_cell_per_second(self):
    picture = np.arange(192 * 192 * 3).reshape(192, 192, 3) % 256
    frames = digits_benchmark.moving(picture, 2)
    self.assertLen(frames, 16)
    np.testing.assert_array_equal(frames[7], picture)
    np.testing.assert_array_equal(frames[8][:, 16:], picture[:, :-16])
    np.testing.assert_array_equal(frames[8][:, :16], picture[:, -16:])


if __name__ == "__main__":
  absltest.main()
