"""Output directories, files that are written whole or not at all, and full disks."""

import errno
import fcntl
import os
import pathlib
import shutil
import tempfile
import threading
from unittest import mock

from absl.testing import absltest

from experiments.running import files
from tests.reference import limits


class FilesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def listing(self):
    return sorted(path.name for path in self.directory.iterdir())

  def test_write_is_atomic(self):
    path = self.directory / "out.md"
    files.write(path, "one")
    with mock.patch.object(files.os, "replace", side_effect=OSError), self.assertRaises(OSError):
      files.write(path, "two")
    self.assertEqual(path.read_text(), "one")
    files.write(path, b"three")
    self.assertEqual([p.name for p in self.directory.iterdir()], ["out.md"])
    self.assertEqual(path.read_text(), "three")

  def test_what_a_killed_writer_left_is_replaced(self):
    path = self.directory / "out.md"
    with mock.patch.object(pathlib.Path, "unlink"), self.assertRaises(KeyboardInterrupt):
      with files.replacing(path) as partial:
        partial.write_text("half")
        raise KeyboardInterrupt
    self.assertLen(self.listing(), 1)
    files.write(path, "whole")
    self.assertEqual(self.listing(), ["out.md"])
    self.assertEqual(path.read_text(), "whole")

  def test_a_locked_directory_lets_in_one_at_a_time(self):
    entered = threading.Event()

    def enter():
      with files.locked(self.directory):
        entered.set()

    with files.locked(self.directory):
      thread = threading.Thread(target=enter)
      thread.start()
      self.assertFalse(entered.wait(0.2))
    thread.join()
    self.assertTrue(entered.is_set())

  def test_a_full_disk_is_named_and_leaves_what_was_there(self):
    path = self.directory / "out.md"
    files.write(path, "one")
    with limits.file_size(3), self.assertRaisesRegex(OSError, f"File too large: '{path}'"):
      files.write(path, "three")
    self.assertEqual(path.read_text(), "one")
    self.assertEqual(self.listing(), ["out.md"])

  def test_space(self):
    files.check_space(self.directory, 1)
    usage = shutil.disk_usage(self.directory)
    with self.assertRaisesRegex(OSError, f"No space left on device: '{self.directory}'"):
      files.check_space(self.directory, usage.free)

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
    with self.assertRaisesRegex(ValueError, "results: cannot write to '.*file' .it is a file."):
      files.output_directory("results", str(file))
    with self.assertRaisesRegex(ValueError, "results: cannot write to '.*/nnn.*' .File name too long."):
      files.output_directory("results", str(self.directory / ("n" * 300)))
    with mock.patch.object(files.tempfile, "TemporaryFile", side_effect=OSError(errno.ENOSPC, "No space left on device")):
      with self.assertRaisesRegex(ValueError, "results: cannot write to '.*' .No space left on device."):
        files.output_directory("results", str(self.directory))

  def test_output_directory_with_a_directory_in_the_place_of_a_result(self):
    (self.directory / "table.md").mkdir()
    with self.assertRaisesRegex(ValueError, "output_dir: .*table.md is a directory, a file of this name is to be written"):
      files.output_directory("output_dir", str(self.directory), results=("plot.png", "table.md"))

  def test_a_resumable_directory_belongs_to_one_run_at_a_time(self):
    name = str(self.directory)
    with files.resumable_directory("output_dir", name) as path:
      self.assertEqual(path, self.directory)
      with self.assertRaisesRegex(
        ValueError, f"output_dir: another run is using {name}; wait until it ends, or give another"
      ):
        with files.resumable_directory("output_dir", name):
          self.fail("two runs have the directory")
    with self.assertRaises(KeyError), files.resumable_directory("output_dir", name):
      raise KeyError
    with files.resumable_directory("output_dir", name):
      pass
    self.assertEqual(self.listing(), [])

  def test_only_the_first_of_several_processes_locks(self):
    with files.resumable_directory("output_dir", str(self.directory), shared=True):
      with mock.patch.object(files.jax, "process_index", return_value=1):
        with files.resumable_directory("output_dir", str(self.directory), shared=True) as path:
          self.assertEqual(path, self.directory)

  def test_other_processes_have_directories_of_their_own(self):
    with mock.patch.object(files.jax, "process_index", return_value=1):
      path = files.output_directory("output_dir", str(self.directory / "a"))
      self.assertNotIn(self.directory, path.parents)
      self.assertEqual(files.output_directory("output_dir", str(path / "b")), path / "b")
      self.assertEqual(files.output_directory("output_dir", str(self.directory / "a")), path)
      self.assertNotEqual(files.output_directory("output_dir", "gs://bucket/a"), path)
    self.assertEqual(self.listing(), [])

  def test_file_systems_without_locks(self):
    with mock.patch.object(fcntl, "flock", side_effect=OSError(errno.EBADF, os.strerror(errno.EBADF))):
      with files.resumable_directory("output_dir", str(self.directory)) as path:
        self.assertEqual(path, self.directory)

  def test_an_interruption_says_how_to_resume(self):
    with self.assertRaisesRegex(KeyboardInterrupt, f"the same command resumes with what is in {self.directory}"):
      with files.resumable_directory("output_dir", str(self.directory)):
        raise KeyboardInterrupt


if __name__ == "__main__":
  absltest.main()
