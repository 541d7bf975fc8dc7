"""Pictures from files, bytes and arrays."""

import io
import os
import pathlib
import subprocess
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from models.inputs import pictures


class PictureTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def refused(self, picture, message):
    with self.assertRaisesRegex(ValueError, message):
      pictures.open_picture(picture)

  def test_files_that_are_no_pictures(self):
    self.refused(str(self.directory / "none.png"), "none.png does not exist")
    text = self.directory / "text.png"
    text.write_text("not a picture")
    self.refused(text, "text.png is not a picture")
    self.refused(self.directory, "images: ")

  def test_truncated(self):
    noise = np.random.default_rng(0).integers(0, 255, [64, 64, 3], np.uint8)
    for name in ("a.png", "a.jpg"):
      path = self.directory / name
      Image.fromarray(noise).save(path)
      path.write_bytes(path.read_bytes()[:-2000])
      self.refused(path, f"{name} cannot be read, it may be truncated")

  def test_sizes(self):
    self.refused(np.zeros([0, 5, 3], np.uint8), "images is 5 x 0 pixels, must have 1 to 100,000,000")
    self.refused(Image.new("1", (20_000, 10_000)), "20000 x 10000 pixels, must have 1 to 100,000,000")
    huge = self.directory / "huge.png"
    Image.new("1", (20_000, 10_000)).save(huge)
    self.refused(huge, "huge.png .*must have 1 to 100,000,000")

  def test_types(self):
    self.refused(np.zeros([5, 5, 3], np.float32), "got a float32 array of shape .5, 5, 3., must be uint8")
    self.refused(np.zeros([5, 5], np.uint8), "must be uint8 .H, W, 3.")
    self.refused(3, "got int, must be a PIL image, a uint8 array or a path")

  def test_modes_become_rgb(self):
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
      self.assertEqual(pictures.open_picture(Image.new(mode, (8, 8))).mode, "RGB")

  def test_other_arguments(self):
    for given in (b"", None, 3.5, "a\0b", "a" * 300, "/dev/zero"):
      self.refused(given, "^the content" if isinstance(given, bytes) else "^images")
    self.refused(b"no picture", "the content is not a picture Pillow can read as PNG, JPEG")

  @parameterized.parameters(*pictures.FORMATS)
  def test_formats(self, kind):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 4)).save(buffer, kind)
    self.assertEqual(pictures.open_picture(buffer.getvalue()).size, (8, 4))
    self.assertEqual(pictures.picture_size(buffer.getvalue()), (8, 4))

  @parameterized.parameters("EPS", "PDF", "ICO")
  def test_other_formats_are_refused_before_they_are_read(self, kind):
    path = self.directory / "picture.png"
    Image.new("RGB", (64, 64)).save(path, kind)
    with mock.patch.object(subprocess, "check_call") as started:  # Pillow starts Ghostscript with it
      self.refused(path, "picture.png is not a picture Pillow can read as PNG, JPEG, WEBP, BMP, GIF, TIFF, PPM")
      self.refused(path.read_bytes(), "is not a picture Pillow can read as PNG")
      if kind != "PDF":  # which Pillow only writes
        with Image.open(path) as opened:
          self.refused(opened, f"images: got the format {kind}, allowed are PNG")
    started.assert_not_called()

  def test_a_named_pipe_does_not_hang(self):
    os.mkfifo(self.directory / "pipe.png")
    self.refused(self.directory / "pipe.png", "pipe.png is not a file")

  def test_sixteen_bits(self):
    levels = np.asarray([[0, 255, 256, 65_535]], np.uint16)
    Image.fromarray(levels).save(self.directory / "deep.png")
    opened = pictures.open_picture(self.directory / "deep.png")
    np.testing.assert_array_equal(np.asarray(opened)[0, :, 0], [0, 0, 1, 255])
    self.refused(Image.new("F", (4, 4)), "images has numbers of any size for pixels .mode F.")

  def test_corrupt_files_of_all_kinds(self):
    """A few of the files with which a decoder raises something of its own."""
    rng, noise = np.random.default_rng(0), np.random.default_rng(1).integers(0, 255, [16, 16, 3], np.uint8)
    for kind in pictures.FORMATS:
      buffer = io.BytesIO()
      Image.fromarray(noise).save(buffer, kind)
      for _ in range(30):
        content = bytearray(buffer.getvalue())
        content[rng.integers(min(len(content), 200))] = rng.integers(256)
        try:
          pictures.open_picture(bytes(content), "the picture")
        except ValueError as error:
          self.assertStartsWith(str(error), "the picture")


if __name__ == "__main__":
  absltest.main()
