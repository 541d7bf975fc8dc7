"""Sweeps: their points, their table, and what interruptions, shards and failures leave of it."""

import contextlib
import dataclasses
import fcntl
import io
import json
import os
import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from experiments import sweep
from experiments.running import command
from experiments.running import files


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToySettings(command.Settings):
  """Settings of a command that multiplies."""

  a: int = command.option(1, "A factor.", least=0)
  b: tuple[float, ...] = command.option((1.0,), "Other factors.")
  name: str = command.option("x", "A name.", choices=("x", "y"))
  output_dir: str = command.option("out/toy", "Directory.")


@contextlib.contextmanager
def open_directory(path):
  """Its descriptor."""
  descriptor = os.open(path, os.O_RDONLY)
  yield descriptor
  os.close(descriptor)


class SweepTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.ran, self.failing, self.killed = [], set(), set()
    toy = types.SimpleNamespace(Settings=ToySettings, run=self.run_toy, summarize=lambda result: {"product": result})
    self.enter_context(mock.patch.dict(sweep.COMMANDS, toy=toy))

  def run_toy(self, settings):
    point = (settings.a, *settings.b)
    self.ran.append(point)
    if point in self.killed:
      self.killed.remove(point)
      raise KeyboardInterrupt
    if point in self.failing:
      raise RuntimeError("no memory\nleft | here")
    return settings.a * settings.b[0]

  def sweep(self, *sets, **settings):
    """The rows, and what is printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
      arguments = {"output_dir": str(self.directory), **settings}
      rows = sweep.run(sweep.Settings(command="toy", set=sets, **arguments))
    return rows, printed.getvalue()

  def test_product_and_table(self):
    rows, printed = self.sweep("a=1,2", "b=0.5,3", "name=y")
    expected = "| a | b | product |\n|---|---|---:|\n| 1 | 0.5 | 0.5 |\n| 1 | 3 | 3 |\n| 2 | 0.5 | 1 |\n| 2 | 3 | 6 |\n"
    self.assertEqual((self.directory / "table.md").read_text(), expected)
    self.assertIn(expected, printed)
    self.assertEqual(rows[3], {"a": "2", "b": "3", "product": 6.0})
    self.assertEqual((self.directory / "table.csv").read_text().splitlines()[:2], ["a,b,product", "1,0.5,0.5"])
    self.assertEqual(json.loads((self.directory / "a=2,b=3" / "sweep.json").read_text())["settings"]["name"], "y")
    self.sweep("a=1,2", "b=0.5,3", "name=y")  # everything is done
    self.assertLen(self.ran, 4)

  def test_killed_twice_and_in_shards_it_ends_in_the_same_table(self):
    sets = ("a=1,2,3,4", "b=1,2,3")
    self.sweep(*sets, output_dir=str(self.directory / "whole"))
    self.ran.clear()
    self.killed = {(1, 3.0), (3, 3.0)}
    for _ in range(2):
      with self.assertRaises(KeyboardInterrupt):
        self.sweep(*sets, shard="0/2")
    self.sweep(*sets, shard="0/2")
    self.assertIn("not run yet", (self.directory / "table.md").read_text())
    self.sweep(*sets, shard="1/2")
    self.assertLen(self.ran, 12 + 2)
    for name in ("table.md", "table.csv"):
      self.assertEqual((self.directory / name).read_text(), (self.directory / "whole" / name).read_text())

  def test_a_failing_point_does_not_end_the_others(self):
    self.failing = {(2, 1.0)}
    with self.assertRaisesRegex(ValueError, "^1 of 3 points failed; .*table.md says why$"):
      self.sweep("a=1,2,3")
    self.assertEqual(
      (self.directory / "table.md").read_text().splitlines()[2:],
      ["| 1 | 1 |  |", "| 2 |  | RuntimeError: no memory left / here |", "| 3 | 3 |  |"],
    )
    self.assertIn("Traceback", (self.directory / "a=2" / "error.txt").read_text())
    self.failing.clear()
    self.sweep("a=1,2,3")  # tries again
    self.assertEqual(self.ran, [(1, 1.0), (2, 1.0), (3, 1.0), (2, 1.0)])
    self.assertFalse((self.directory / "a=2" / "error.txt").exists())

  def test_only_the_first_process_writes_the_table_and_does_so_alone(self):
    def write(output, points, rows):
      with open_directory(output) as lock, self.assertRaises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      written.append(rows)

    written = []
    with mock.patch.object(sweep, "_write", write):
      rows, _ = self.sweep("a=1,2")
      with mock.patch.object(sweep.jax, "process_index", return_value=1):
        self.assertEqual(self.sweep("a=1,2")[0], rows)
    self.assertEqual(written, [rows])

  def write_config(self, hyper):
    path = self.directory / "toy.py"
    path.write_text(
      f"def get_config():\n  return {{'a': 5, 'name': 'y', 'distributed': True}}\n\ndef get_hyper():\n  return {hyper}\n"
    )
    return str(path)

  def test_config_and_hyper(self):
    rows, _ = self.sweep(config=self.write_config("{'b': [(1, 2), 3], 'name': ['y']}"))
    self.assertEqual(rows, [{"b": "1+2", "product": 5.0}, {"b": "3", "product": 15.0}])

  def test_hyper_as_a_list_of_points(self):
    rows, _ = self.sweep(config=self.write_config("[{'a': 2}, {'a': 3, 'b': 0.5}]"))
    self.assertEqual(rows, [{"a": "2", "b": "1", "product": 2.0}, {"a": "3", "b": "0.5", "product": 1.5}])

  def test_set_replaces_what_the_config_varies(self):
    rows, _ = self.sweep("b=7", config=self.write_config("{'b': [1, 2], 'a': [1, 3]}"))
    self.assertEqual(rows, [{"a": "1", "product": 7.0}, {"a": "3", "product": 21.0}])

  def test_print(self):
    _, printed = self.sweep("a=1,2,3", "name=x", print=True, shard="1/2")
    self.assertEqual(
      printed,
      "python -m experiments.sweep --command=toy --set=a=1,2,3 --set=name=x --shard=1/3 "
      f"--output_dir={self.directory}  # a=2\n",
    )
    self.assertEmpty(self.ran)

  def test_long_labels_get_a_hash(self):
    with mock.patch.object(sweep, "_LONGEST", 14):
      self.assertLen(self.sweep("a=10001,10002", "b=0.123,0.124")[0], 4)
    self.assertLen(list(self.directory.glob("a-*")), 4)

  def test_a_point_that_another_run_is_at_ends_the_sweep(self):
    def run(settings):
      with files.resumable_directory("output_dir", settings.output_dir):
        return self.run_toy(settings)

    self.enter_context(mock.patch.object(sweep.COMMANDS["toy"], "run", run))
    with files.resumable_directory("output_dir", str(self.directory / "a=2")):
      with self.assertRaisesRegex(ValueError, "^output_dir: another run is using .*a=2;"):
        self.sweep("a=1,2")
    self.assertFalse((self.directory / "a=2" / "sweep.json").exists())
    self.sweep("a=1,2")
    self.assertEqual(self.ran, [(1, 1.0), (2, 1.0)])

  def test_a_damaged_result_is_named(self):
    self.sweep("a=1,2")
    for content in ("{", "[1]", "{}", '{"settings": 3}', "[" * 100_000):
      (self.directory / "a=2" / "sweep.json").write_text(content)
      with self.assertRaisesRegex(ValueError, "output_dir: .*a=2/sweep.json is damaged; delete it to run its point again"):
        self.sweep("a=1,2")

  def test_an_interruption_says_how_to_resume(self):
    self.killed = {(2, 1.0)}
    with self.assertRaisesRegex(KeyboardInterrupt, f"the same command resumes with what is in {self.directory}"):
      self.sweep("a=1,2")

  def test_other_settings_in_the_same_directory(self):
    self.sweep("a=1,2")
    with self.assertRaisesRegex(ValueError, "belongs to a run with other name; give another directory"):
      self.sweep("a=1,2", "name=y")

  @parameterized.parameters(
    ({"set": ("a",)}, "set: got 'a', must be NAME=VALUE"),
    ({"set": ("a=1", "a=2")}, "set: got 'a=2'.*no other"),
    ({"set": ("aa=1",)}, "set: unknown key 'aa'"),
    ({"set": ("output_dir=1",)}, "set: unknown key 'output_dir'"),
    ({"set": ("a=x,2",)}, "set: flag --a=x"),
    ({"set": ("a=-1,2",)}, "a: got -1, must be at least 0"),
    ({"set": ("a=1,1",)}, "set: a=1 is there twice"),
    ({"shard": "2/2"}, "shard: got '2/2', must be I/N"),
    ({"shard": "half"}, "shard: got 'half'"),
    ({"command": "nosuch"}, "command: got 'nosuch', allowed are accuracy"),
    ({"config": "/no/such.py"}, "config: there is no file"),
  )
  def test_refused(self, settings, message):
    with self.assertRaisesRegex(ValueError, message):
      sweep.run(sweep.Settings(**{"command": "toy", "output_dir": str(self.directory / "out"), **settings}))
    self.assertFalse((self.directory / "out").exists())

  def test_hyper_that_is_refused(self):
    for hyper, message in (
      ("3", "get_hyper must return"),
      ("{'a': []}", "get_hyper must"),
      ("{'c': [1]}", "unknown key 'c'"),
    ):
      with self.subTest(hyper), self.assertRaisesRegex(ValueError, message):
        self.sweep(config=self.write_config(hyper + "  " * len(message)))

  def test_commands_have_what_a_sweep_needs(self):
    for name, module in sweep.COMMANDS.items():
      with self.subTest(name):
        self.assertIn("output_dir", command.names_of(module.Settings))
        self.assertTrue(callable(module.run) and callable(module.summarize))


if __name__ == "__main__":
  absltest.main()
