"""What a killed run left behind is taken up, whole lines only."""

import pathlib
import tempfile

from absl.testing import absltest

from experiments import journal


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

  def test_goes_on(self):
    first = self.open()
    first.append({"x": 0.1})
    first.append({"x": 1 / 3})
    again = self.open()
    self.assertEqual(again.records, [{"x": 0.1}, {"x": 1 / 3}])
    self.assertEqual(list(again.remaining(5, "x")), [2, 3, 4])

  def test_a_torn_line_is_dropped_wherever_it_was_torn(self):
    self.open().append({"x": 1})
    whole = self.path.read_bytes()
    undisturbed = whole + b'{"x": 2}\n'
    for cut in range(len(whole), len(undisturbed)):
      self.path.write_bytes(undisturbed[:cut])
      again = self.open()
      self.assertEqual(again.records, [{"x": 1}])
      again.append({"x": 2})
      self.assertEqual(self.path.read_bytes(), undisturbed)

  def test_a_torn_first_line_begins_anew(self):
    self.open().append({"x": 1})
    whole = self.path.read_bytes()
    self.path.write_bytes(whole[:5])
    self.assertEqual(self.open().records, [])

  def test_other_settings_are_refused_and_nothing_is_lost(self):
    self.open().append({"x": 1})
    before = self.path.read_bytes()
    with self.assertRaisesRegex(ValueError, "output_dir: .*records.jsonl is of a run with other b, c;"):
      journal.Journal(self.path, {"a": 1, "b": [2], "c": 0})
    self.assertEqual(self.path.read_bytes(), before)

  def test_write_is_atomic(self):
    path = self.path.with_name("out.md")
    journal.write(path, "one")
    journal.write(path, "two")
    self.assertEqual([p.name for p in path.parent.iterdir()], ["out.md"])
    self.assertEqual(path.read_text(), "two")


if __name__ == "__main__":
  absltest.main()
