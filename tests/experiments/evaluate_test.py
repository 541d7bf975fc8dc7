"""The app as a user starts it: killed and started again, shared by two processes, and refused what is bad."""

import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / "experiments" / "benchmark_files" / "digits.tsv"
RESULTS = ("manifest.json", "plot.png", "predictions.jsonl", "report.html", "scores.json", "table.md")


class EvaluateTest(absltest.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    holder = tempfile.TemporaryDirectory()
    cls.addClassCleanup(holder.cleanup)
    cls.directory = pathlib.Path(holder.name)
    # The last row's picture is cut off, which is found out on decoding it.
    lines = DATA.read_text().splitlines(keepends=True)[:11]
    cells = lines[10].split("\t")
    cells[1] = cells[1][:len(cells[1]) // 8 * 4]
    cls.data = cls.directory / "digits.tsv"
    cls.data.write_text("".join(lines[:10]) + "\t".join(cells))
    cls.whole = cls.finish(cls.start("whole"))

  @classmethod
  def start(cls, name, *arguments):
    flags = [f"--data={cls.data}", "--keep_ratio=0.2", "--batch_size=2", "--max_new_tokens=4",
             "--gallery=3", f"--compilation_cache={cls.directory / 'cache'}", f"--output_dir={cls.directory / name}"]
    return subprocess.Popen(
        [sys.executable, "-m", "experiments.evaluate", *flags, *arguments], cwd=ROOT, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True, env={**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)})

  @classmethod
  def finish(cls, process):
    out, errors = process.communicate()
    if process.returncode:
      raise AssertionError(errors)
    return out + errors

  def same_as_whole(self, name):
    for file in RESULTS:
      self.assertEqual((self.directory / name / file).read_bytes(), (self.directory / "whole" / file).read_bytes(), file)

  def test_results(self):
    self.assertIn("digits.tsv: row 10 (index 9), column image", self.whole)
    table = (self.directory / "whole" / "table.md").read_text()
    self.assertRegex(table, r"\| 100 % \| unpruned \| [\d.]+ \(100.0 %\) \| 100.0 % \|\n\| 20 % \| hawk \| [\d.]+ \(")
    self.assertIn("1 of 10 questions could not be asked", table)
    self.assertEqual({path.name for path in (self.directory / "whole").iterdir()}, {*RESULTS, "journal", "seconds.jsonl"})
    page = (self.directory / "whole" / "report.html").read_text()
    self.assertNotRegex(page, r"""(src|href)=["']?http|url\(|@import""")

  def test_killed_and_started_again_equals_undisturbed(self):
    path = self.directory / "killed" / "journal" / "00000.jsonl"
    written = lambda: path.read_bytes().count(b"\n") if path.exists() else 0
    for lines in (2, 4):
      process = self.start("killed")
      while process.poll() is None and written() < lines:
        time.sleep(0.005)
      process.kill()
      process.communicate()
      self.assertEqual(process.returncode, -9)
      self.assertLess(written(), 6)
    with open(path, "ab") as file:
      file.write(b'{"batch": 4, "ro')  # as if the kill had come while a line was being written
    self.finish(self.start("killed"))
    self.same_as_whole("killed")
    process = self.start("killed", "--batch_size=4", "--max_new_tokens=5")
    _, errors = process.communicate()
    self.assertEqual(process.returncode, 2, errors)
    self.assertRegex(errors, "error: output_dir: .*00000.jsonl is of a run with other batch_size, max_new_tokens")
    self.same_as_whole("killed")

  def test_two_processes_equal_one(self):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    processes = [self.start("shared", "--distributed", f"--coordinator_address={address}", "--num_processes=2",
                            f"--process_id={index}") for index in range(2)]
    for process in processes:
      self.finish(process)
    self.same_as_whole("shared")
    counts = [path.read_bytes().count(b"\n") for path in sorted((self.directory / "shared" / "journal").iterdir())]
    self.assertEqual(counts, [4, 3])

  def test_strict(self):
    process = self.start("strict", "--strict")
    _, errors = process.communicate()
    self.assertEqual(process.returncode, 2, errors)
    self.assertIn("error: ", errors)
    self.assertIn("digits.tsv: row 10 (index 9), column image", errors)
    self.assertNotIn("Traceback", errors)


if __name__ == "__main__":
  absltest.main()
