"""Output directories, and files that are written whole or not at all."""

import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest

from experiments.running import files


class FilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def test_write_is_atomic(self):
    path = self.directory / "out.md"
    files.write(path, "one")
    with mock.patch.object(files.os, "replace", side_effect=OSError), self.assertRaises(OSError):
      files.write(path, "two")
    self.assertEqual(path.read_text(), "one")
    files.write(path, b"three")
    self.assertEqual([p.name for p in self.directory.iterdir()], ["out.md"])
    self.assertEqual(path.read_text(), "three")

  def test_output_directory_is_made(self):
    wanted = self.directory / "a" / "b"
    self.assertEqual(files.output_directory("output_dir", str(wanted)), wanted)
    self.assertEqual(list(wanted.iterdir()), [])

  def test_output_directory_that_cannot_be_written_to(self):
    file = self.directory / "file"
    file.touch()
    for value in (file, file / "below"):
      with self.assertRaisesRegex(ValueError, f"results: cannot write to '{value}'"):
        files.output_directory("results", str(value))


if __name__ == "__main__":
  absltest.main()
