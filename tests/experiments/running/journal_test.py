"""An interrupted run resumes from its journal, from complete lines only."""

import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest

from experiments.running import journal
from tests.reference import limits


class JournalTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.path = pathlib.Path(holder.name) / "records.jsonl"

  def open(self, settings=None):
    opened = journal.Journal(self.path, settings or {"a": 1, "b": (2, 3)})
    self.addCleanup(opened.close)
    return opened

  def test_resumes(self):
    first = self.open()
    first.append({"x": 0.1})
    first.append({"x": 1 / 3})
    again = self.open()
    self.assertEqual(again.records, [{"x": 0.1}, {"x": 1 / 3}])
    self.assertEqual(list(again.remaining(5, "x")), [2, 3, 4])

  def test_a_torn_line_is_dropped_wherever_it_was_torn(self):
    first = self.open()
    first.append({"x": 1})
    whole = self.path.read_bytes()
    first.append({"x": 2})
    undisturbed = self.path.read_bytes()
    for cut in range(len(whole), len(undisturbed)):
      self.path.write_bytes(undisturbed[:cut])
      again = self.open()
      self.assertEqual(again.records, [{"x": 1}])
      again.append({"x": 2})
      self.assertEqual(self.path.read_bytes(), undisturbed)

  def test_a_torn_first_line_starts_anew(self):
    self.open().append({"x": 1})
    whole = self.path.read_bytes()
    self.path.write_bytes(whole[:5])
    self.assertEqual(self.open().records, [])

  def test_other_settings_are_refused_and_nothing_is_lost(self):
    self.open().append({"x": 1})
    before = self.path.read_bytes()
    with self.assertRaisesRegex(ValueError, "output_dir: .*records.jsonl belongs to a run with other b, c;"):
      journal.Journal(self.path, {"a": 1, "b": [2], "c": 0})
    self.assertEqual(self.path.read_bytes(), before)

  def test_a_damaged_line_is_named(self):
    first = self.open()
    first.append({"x": 1})
    first.append({"x": 2})
    lines = self.path.read_bytes().splitlines(keepends=True)
    for line in (
      b"[1]\n",
      b"\n",
      b"{}\n",
      b"null\n",
      b'{"x": 1}\n',
      b"\xff\n",
      b"[" * 100_000 + b"\n",
      lines[1].replace(b"1,", b"3,"),
      lines[1][:-1] + b"\0\n",
    ):
      for number in range(3):
        damaged = [*lines[:number], line, *lines[number + 1 :]]
        self.path.write_bytes(b"".join(damaged))
        with self.subTest(number=number, line=line[:20]):
          with self.assertRaisesRegex(
            ValueError, f"output_dir: .*records.jsonl, line {number + 1} is damaged; delete it and"
          ):
            self.open()
          self.assertEqual(self.path.read_bytes(), b"".join(damaged))

  def test_lost_doubled_and_swapped_lines_are_named(self):
    first = self.open()
    for number in (1, 1, 2):
      first.append({"x": number})
    lines = self.path.read_bytes().splitlines(keepends=True)
    for order, damaged in (((0, 1, 1, 2, 3), 3), ((0, 2, 3), 2), ((0, 1, 3), 3), ((0, 2, 1, 3), 2), ((0, 0, 1), 2)):
      self.path.write_bytes(b"".join(lines[at] for at in order))
      with self.assertRaisesRegex(ValueError, f"records.jsonl, line {damaged} is damaged"):
        self.open()

  def test_a_full_disk_loses_nothing_that_was_recorded(self):
    first = self.open()
    first.append({"x": 1})
    with limits.file_size(self.path.stat().st_size + 5):
      with self.assertRaisesRegex(OSError, f"File too large: '{self.path}'"):
        first.append({"x": 2})
    first.close()
    again = self.open()
    self.assertEqual(again.records, [{"x": 1}])
    again.append({"x": 2})
    self.assertEqual(journal.read(self.path), [{"x": 1}, {"x": 2}])

  def test_two_runs_at_once_are_refused(self):
    script = (
      "import fcntl, sys; file = open(sys.argv[1], 'a'); fcntl.lockf(file, fcntl.LOCK_EX); print(flush=True); "
      "sys.stdin.read()"
    )
    with subprocess.Popen(
      [sys.executable, "-c", script, str(self.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
      other.stdout.readline()
      with self.assertRaisesRegex(ValueError, "output_dir: another run is writing .*records.jsonl"):
        journal.Journal(self.path, {})
      other.stdin.close()
    self.assertEqual(self.open().records, [])

  def test_reads_what_another_run_is_writing(self):
    self.open().append({"x": 1})
    self.assertEqual(journal.read(self.path, {"a": 1, "b": (2, 3)}), [{"x": 1}])
    with self.assertRaisesRegex(ValueError, "output_dir: .*records.jsonl belongs to a run with other a;"):
      journal.read(self.path, {"a": 2, "b": (2, 3)})


if __name__ == "__main__":
  absltest.main()
