"""The command: interrupted and resumed, shared by two processes, and what it refuses."""

import dataclasses
import json
import pathlib
import shutil
import signal
import socket
import tempfile
import time
from unittest import mock

from absl.testing import absltest

from experiments import evaluate
from experiments.evaluation import asking
from experiments.running import files
from experiments.running import journal
from experiments.running import watching
from hawk_jax import importance
from tests.experiments import programs
from tests.reference import browser
from tests.reference import processes

ROOT = pathlib.Path(__file__).parents[2]
DATA = ROOT / "experiments" / "benchmark_files" / "digits.tsv"
RESULTS = (
  "intervals.md",
  "manifest.json",
  "plot.pdf",
  "plot.png",
  "predictions.jsonl",
  "report.html",
  "scores.json",
  "table.md",
)


class EvaluateTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    # The picture of the last row is cut off, which is found out when it is decoded.
    lines = DATA.read_text().splitlines(keepends=True)[:11]
    cells = lines[10].split("\t")
    cells[1] = cells[1][: len(cells[1]) // 8 * 4]
    cls.data = cls.directory / "digits.tsv"
    cls.data.write_text("".join(lines[:10]) + "\t".join(cells))
    # The processes that the tests start find the programs that this one compiles.
    cls.programs = cls.enterClassContext(programs.shared())
    with mock.patch.object(asking.logging, "warning") as warning:
      cls.whole = evaluate.run(cls.settings("whole"))
    cls.warnings = [call.args[0] % call.args[1:] for call in warning.call_args_list]

  @classmethod
  def settings(cls, name, **changes):
    return evaluate.Settings(
      **dict(
        data=(str(cls.data),),
        keep_ratio=(0.2,),
        batch_size=2,
        max_new_tokens=6,
        gallery=3,
        output_dir=str(cls.directory / name),
      )
      | changes
    )

  def start(self, name, *arguments):
    """The command with the same settings, in a process of its own."""
    settings, default = self.settings(name), evaluate.Settings(data=("",))
    flags = [
      f"--{field.name}={one}"
      for field in dataclasses.fields(settings)
      if (value := getattr(settings, field.name)) != getattr(default, field.name)
      for one in (value if isinstance(value, tuple) else [value])
    ]
    flags.append(f"--compilation_cache={self.programs}")
    return processes.Program("experiments.evaluate", *flags, *arguments)

  def same_as_whole(self, name):
    for file in RESULTS:
      self.assertEqual((self.directory / name / file).read_bytes(), (self.directory / "whole" / file).read_bytes(), file)

  def test_results(self):
    self.assertLen(self.warnings, 1)
    self.assertRegex(self.warnings[0], r"digits.tsv: row 10 \(index 9\), column image")
    directory = self.whole.directory
    self.assertEqual(directory, self.directory / "whole")
    table = (directory / "table.md").read_text()
    self.assertRegex(table, r"\| 100 % \| unpruned \| [\d.]+ \(100.0 %\) \| 100.0 % \|\n\| 20 % \| hawk \| [\d.]+ \(")
    self.assertIn("1 of 10 questions could not be asked", table)
    self.assertEqual({path.name for path in directory.iterdir()}, {*RESULTS, "journal", "metrics.jsonl", "seconds.jsonl"})
    page = (directory / "report.html").read_text()
    self.assertNotRegex(page, r"""(src|href)=["']?http|url\(|@import""")
    self.assertLen(self.whole.prunings, 2)
    written = json.loads((directory / "scores.json").read_text())["digits"]["settings"].values()
    self.assertEqual([setting["scores"] for setting in written], self.whole.results[0].totals)

  def test_metrics(self):
    lines = watching.read(self.whole.directory / "metrics.jsonl")
    self.assertEqual([line["step"] for line in lines], [1, 2, 3, 4, 5, 5])
    self.assertEqual(lines[4]["questions"], 10)
    self.assertIn("seconds/vision", lines[0])
    self.assertEqual(lines[5]["digits"], self.whole.results[0].headlines[1])

  @absltest.skipIf(browser.find() is None, "there is no Chromium")
  def test_the_page_in_a_browser(self):
    page = browser.Browser((self.whole.directory / "report.html").as_uri())
    self.addCleanup(page.close)
    page.wait("document.body && document.body.dataset.ready")
    shown = lambda selector: page.run(f"[...document.querySelectorAll('{selector}')].filter(e => e.offsetParent).length")
    change = lambda id, script: page.run(f"e = document.getElementById('{id}'); {script}; filter()")
    self.assertRegex(
      page.run("document.getElementById('summary').innerText"), r"(?s)setting.*all tokens.*100 %.*hawk 0.2\s*20 %"
    )
    self.assertEqual((shown("article"), shown("figure")), (2, 6))  # the third question has a broken picture
    change("maps", "e.checked = false")
    self.assertEqual(shown("figure"), 4)
    change("sides", "e.checked = true")
    self.assertEqual(shown(".two figure"), 4)
    self.assertEqual(shown(".answers figure"), 0)
    change("sides", "e.checked = false")
    question = page.run("data.questions[0].question")
    change("search", f"e.value = {json.dumps(question.upper())}")
    self.assertEqual(shown("article"), 1)
    change("search", "e.value = ''")
    # Beside an answer that pruning lost, the page shows the one from all tokens.
    page.run(
      "for (const figures of document.querySelectorAll('.answers')) figures.children[1].dataset.verdicts = 'wrong lost'; "
      "document.querySelector('input[value=lost]').checked = true; filter()"
    )
    self.assertEqual(shown("figure"), 4)
    self.assertEmpty(page.errors)

  def test_killed_and_started_again_equals_undisturbed(self):
    path = self.directory / "killed" / "journal" / "00000.jsonl"
    written = lambda: path.read_bytes().count(b"\n") if path.exists() else 0
    for lines in (2, 4):
      process = self.start("killed")
      while process.running and written() < lines:
        time.sleep(0.005)
      process.kill()
      status, output = process.finish()
      self.assertEqual(status, -signal.SIGKILL, output)
      self.assertLess(written(), 6)
    with open(path, "ab") as file:
      file.write(b'{"batch": 4, "ro')  # as if the process had been killed while it was writing a line
    evaluate.run(self.settings("killed"))
    self.same_as_whole("killed")
    with self.assertRaisesRegex(ValueError, "output_dir: .*00000.jsonl belongs to a run with other batch_size, max_new_tok"):
      evaluate.run(self.settings("killed", batch_size=4, max_new_tokens=5))
    self.same_as_whole("killed")

  def test_two_processes_equal_one(self):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [
      self.start("shared", "--distributed", f"--coordinator_address={address}", "--num_processes=2", f"--process_id={index}")
      for index in range(2)
    ]
    outputs = [processes.succeeded(program) for program in started]
    self.assertIn("written to", outputs[0])
    self.assertNotIn("written to", outputs[1])
    self.same_as_whole("shared")
    counts = [path.read_bytes().count(b"\n") for path in sorted((self.directory / "shared" / "journal").iterdir())]
    self.assertEqual(counts, [4, 3])

  def test_rows_of_several_importances_rules_and_merges(self):
    importance.save(str(self.directory / "last.json"), [0, 0, 0, 0, 0, 0, 0, 1])
    settings = self.settings(
      "rows",
      importance=(f"last={self.directory / 'last.json'}", "mass=question:mass"),
      selector=("hawk", "scope"),
      merge=("none", "nearest"),
      reference="hawk",
      rounding="floor",
      limit=2,
    )
    found = evaluate.run(settings)
    names = ["hawk", "hawk, merged", "hawk, last", "hawk, last, merged", "hawk, mass", "hawk, mass, merged"]
    names += ["scope", "scope, merged"]
    self.assertEqual([row.selector for row in found.prunings[1:]], names)
    lines = (found.directory / "predictions.jsonl").read_text().splitlines()
    kept = [{name: row["kept"] for name, row in json.loads(line)["settings"].items()} for line in lines]
    self.assertEqual(kept, [{"all tokens": 144, **{f"{name} 0.2": 28 for name in names}}] * 2)
    pages = (found.directory / "report.html").read_text()
    table, intervals = ((found.directory / name).read_text() for name in ("table.md", "intervals.md"))
    for name in names:
      self.assertIn(f"| 20 % | {name} | ", table)
      self.assertRegex(intervals, rf"\| 20 % \| {name} \| [\d.]+ \([\d.]+ to [\d.]+\) \| " + "(?!\\|)" * (name != "hawk"))
      self.assertIn(f"{name} 0.2", pages)
    held = json.loads((found.directory / "manifest.json").read_text())
    self.assertEqual((held["merge"], held["rounding"], held["importances"]["mass"]), (["none", "nearest"], "floor", "mass"))

  def test_strict(self):
    with self.assertRaisesRegex(ValueError, r"digits.tsv: row 10 \(index 9\), column image"):
      evaluate.run(self.settings("strict", strict=True))

  def test_what_is_wrong_is_found_before_weights_are_loaded(self):
    with mock.patch.object(evaluate.registry, "load_params") as load:
      for changes, message in (
        (dict(data=()), "data: give at least one TSV file"),
        (dict(data=(str(self.data),) * 2), "data: two files are called digits.tsv"),
        (dict(selector=("cdpruner",)), "selector: got 'cdpruner', allowed are hawk"),
        (dict(keep_ratio=(1.0,)), "keep_ratio: got 1.0"),
        (dict(head_importance="preset:none"), "none"),
        (dict(max_new_tokens=9000), "max_new_tokens: got 9000"),
        (dict(fps=-1.0), "fps: got -1"),
        (dict(dtype="float8"), "dtype: got 'float8'"),
        (dict(data=("n" * 300,)), "data: there is no file nnn"),
        (dict(model="n" * 300), "model: there is no directory 'nnn"),
        (dict(importance=("mine",)), "importance: got 'mine', must be NAME=SOURCE"),
        (dict(importance=("mine=question:sum",)), "importance: got 'question:sum', allowed are"),
        (dict(merge=("mean",)), "merge: got 'mean', allowed are none, nearest"),
        (dict(reference="random"), "reference: got 'random', the rows are hawk"),
        (dict(score_layer=9), "score_layer: got 9, must be a whole number from 0 to"),
        (dict(sink_filter=1.0), "sink_filter: got 1.0, must be at least 0 and less than 1"),
      ):
        with self.subTest(message), self.assertRaisesRegex(ValueError, message):
          evaluate.run(self.settings("refused", **changes))
      load.assert_not_called()

  def test_what_is_in_the_way_is_found_before_weights_are_loaded(self):
    def directory(name):
      shutil.copytree(self.directory / "whole" / "journal", self.directory / name / "journal")
      return self.directory / name

    def fewer_rows(path):
      records = journal.read(path)
      with mock.patch.dict(records[0]["rows"]):
        records[0]["rows"].popitem()
        path.unlink()
        rewritten = journal.Journal(path, self.conditions())
        for record in records:
          rewritten.append(record)
        rewritten.close()

    (self.directory / "file").mkdir()
    (self.directory / "file" / "journal").touch()
    (directory("report") / "report.html").mkdir()
    damaged = directory("damaged") / "journal" / "00000.jsonl"
    damaged.write_bytes(damaged.read_bytes().replace(b"\n", b"\n[1]\n", 1))
    fewer_rows(directory("fewer") / "journal" / "00000.jsonl")
    with mock.patch.object(evaluate.registry, "load_params") as load:
      for name, message in (
        ("file", "output_dir: cannot write to '.*file/journal' .it is a file."),
        ("report", "output_dir: .*report.html is a directory"),
        ("damaged", "output_dir: .*00000.jsonl, line 2 is damaged"),
        ("fewer", "output_dir: .*00000.jsonl has answers to other questions"),
      ):
        with self.subTest(message), self.assertRaisesRegex(ValueError, message):
          evaluate.run(self.settings(name))
      with files.resumable_directory("output_dir", str(self.directory / "whole"), shared=True):
        with self.assertRaisesRegex(ValueError, "output_dir: another run is using .*whole"):
          evaluate.run(self.settings("whole"))
      load.assert_not_called()

  def conditions(self):
    return json.loads((self.directory / "whole" / "manifest.json").read_text())


if __name__ == "__main__":
  absltest.main()
