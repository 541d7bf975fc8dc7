"""Settings check themselves, and become flags where a module runs as a command."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import flags
from absl.testing import absltest

from experiments import accuracy
from experiments import benchmark
from experiments import compare
from experiments import compile_tpu
from experiments import evaluate
from experiments import explore
from experiments import generate
from experiments import head_importance
from experiments import study
from experiments.running import command

ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings):
  """One field of each type."""

  name: str = command.option("a", "A name.")
  optional: str | None = command.option(None, "Another name.")
  number: int = command.option(3, "A number.", least=1)
  share: float | None = command.option(None, "A share.", least=0.0)
  switch: bool = command.option(False, "A switch.")
  color: str = command.option("red", "A color.", choices=("red", "blue"))
  size: tuple[float, ...] = command.option((0.5,), "Some sizes.", least=0.0)
  shape: tuple[str, ...] = command.option((), "Some shapes.", choices=lambda: {"round": 1, "square": 2})


# A command that is started with several command lines. Each gets a fork, since JAX takes seconds to import.
COMMANDS = """
import dataclasses, json, os, signal, sys, time
from experiments.running import command, files

@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  number: int = command.option(3, "A number.", least=1)
  bad: str | None = command.option(None, "What goes wrong.")

def run(settings):
  if settings.bad == "value":
    raise ValueError("number: got 3, must be 4")
  if settings.bad == "file":
    open("/no/such/file")
  if settings.bad == "interrupted":
    raise KeyboardInterrupt
  if settings.bad == "interrupted run":
    with files.resumable_directory("output_dir", "out"):
      os.kill(os.getpid(), signal.SIGINT)
      time.sleep(60)
  print("number", settings.number)

for number, arguments in enumerate(json.loads(sys.argv[1])):
  if not os.fork():
    for descriptor, name in ((1, "output"), (2, "errors")):
      os.dup2(os.open(f"{name}{number}", os.O_CREAT | os.O_WRONLY), descriptor)
    sys.argv[1:] = arguments
    command.main(Settings, run)
  print(os.waitstatus_to_exitcode(os.wait()[1]), flush=True)
"""
COMMAND_LINES = (
  (),
  ("--help",),
  ("--nosuch=1",),
  ("--number=x",),
  ("--number=0",),
  ("--bad=value",),
  ("--bad=file",),
  ("--bad=interrupted",),
  ("--bad=interrupted run",),
  ("stray",),
)


def parse(*arguments):
  values = flags.FlagValues()
  command.define_flags(Settings, values)
  values(["program", *arguments])
  return command.read_flags(Settings, values)


class SettingsTest(absltest.TestCase):
  def refused(self, message, **settings):
    with self.assertRaisesRegex(ValueError, message):
      Settings(**settings)

  def test_wrong_choices_and_bounds_are_refused_by_name(self):
    self.refused("color: got 'green', allowed are red, blue", color="green")
    self.refused("shape: got 'long', allowed are round, square", shape=("round", "long"))
    self.refused("number: got 0, must be at least 1", number=0)
    self.refused("size: got -1.0, must be at least 0.0", size=(0.2, -1.0))
    self.refused("share: got nan, must be at least", share=float("nan"))

  def test_wrong_types_are_refused_by_name(self):
    self.refused("name: got 3, must be text", name=3)
    self.refused("name: got None, must be text", name=None)
    self.refused("name: got 'half \\\\ud800', must be text", name="half \ud800")
    for number in (3.0, "3", True, 2**31, None):
      self.refused(f"number: got {number!r}, must be a whole number of at most 2147483647", number=number)
    self.refused("switch: got 1, must be True or False", switch=1)
    self.refused("share: got '0.5', must be a number", share="0.5")
    self.refused("share: got inf, must be finite", share=float("inf"))
    self.refused("size: got 0.5, must be a tuple", size=0.5)
    self.refused("shape: got 'round', must be a tuple", shape="round")
    self.refused("size: got None, must be a number", size=(None,))
    self.assertEqual(Settings(name=pathlib.Path("a"), share=1, optional=None).share, 1)

  def test_choices_are_looked_up_when_settings_are_made(self):
    table = {"a": 1}
    rule = command.option("a", "A rule.", choices=lambda: table)
    kind = dataclasses.make_dataclass("Late", [("rule", str, rule)], bases=(command.Settings,), frozen=True, kw_only=True)
    with self.assertRaisesRegex(ValueError, "rule: got 'b', allowed are a"):
      kind(rule="b")
    table["b"] = 2
    self.assertEqual(kind(rule="b").rule, "b")


class FlagsTest(absltest.TestCase):
  def test_defaults_are_those_of_the_settings(self):
    self.assertEqual(parse(), Settings())

  def test_types(self):
    parsed = parse("--name=b", "--optional=", "--number=7", "--share=0.5", "--switch", "--color=blue", "--mesh=data:2")
    self.assertEqual(parsed, Settings(name="b", optional="", number=7, share=0.5, switch=True, color="blue", mesh="data:2"))
    self.assertFalse(parse("--noswitch").switch)

  def test_repeated_flags_replace_the_default(self):
    parsed = parse("--size=1", "--size=2.5", "--shape=square", "--shape=round")
    self.assertEqual((parsed.size, parsed.shape), ((1.0, 2.5), ("square", "round")))

  def test_what_absl_refuses(self):
    for argument in ("--number=x", "--share=x", "--color=green", "--shape=long", "--nosuch=1"):
      with self.assertRaisesRegex(flags.Error, argument[2:].split("=")[0]):
        parse(argument)

  def test_bounds(self):
    with self.assertRaisesRegex(ValueError, "number: got 0, must be at least 1"):
      parse("--number=0")


COMMAND_MODULES = (accuracy, benchmark, compare, compile_tpu, evaluate, explore, generate, head_importance, study)


class CommandsTest(absltest.TestCase):
  def test_commands_that_hold_a_model_spread_it_over_devices(self):
    for module in COMMAND_MODULES:
      self.assertIn("mesh", command.names_of(module.Settings), module.__name__)

  def test_help_of_flags_that_may_be_repeated_says_so_once(self):
    for module in COMMAND_MODULES:
      values = flags.FlagValues()
      command.define_flags(module.Settings, values)
      for name in command.names_of(module.Settings):
        expected = 1 if isinstance(values[name], flags.MultiFlag) else 0
        self.assertEqual(values[name].help.lower().count("repeat"), expected, f"{module.__name__} {name}")


class MainTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path])}
    with tempfile.TemporaryDirectory() as directory:
      script = pathlib.Path(directory) / "toy.py"
      script.write_text(COMMANDS)
      done = subprocess.run(
        [sys.executable, "-W", "ignore", str(script), json.dumps(COMMAND_LINES)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
      )
      read = lambda name, number: (script.parent / f"{name}{number}").read_text()
      cls.results = {
        arguments: (status, read("output", number), read("errors", number))
        for number, (arguments, status) in enumerate(zip(COMMAND_LINES, map(int, done.stdout.split()), strict=True))
      }

  def refused(self, *arguments):
    status, output, errors = self.results[arguments]
    self.assertNotEqual(status, 0)
    self.assertNotIn("Traceback", errors)
    return status, output + errors

  def test_runs(self):
    self.assertEqual(self.results[()], (0, "number 3\n", ""))

  def test_help_lists_the_flags_of_the_command(self):
    status, output, _ = self.results["--help",]
    self.assertEqual(status, 0)
    listed = {line.split(":")[0].strip() for line in output.splitlines() if line.startswith("  --")}
    self.assertContainsSubset({"--number", "--bad", "--compilation_cache", "--[no]distributed"}, listed)
    self.assertNotIn("--verbosity", output)  # absl's own

  def test_flags_that_cannot_be_parsed(self):
    self.assertIn("Unknown command line flag 'nosuch'", self.refused("--nosuch=1")[1])
    self.assertIn("flag --number=x", self.refused("--number=x")[1])
    self.assertIn("unknown arguments: stray", self.refused("stray")[1])

  def test_errors_of_the_command_take_one_line(self):
    for arguments, message in {
      ("--number=0",): "number: got 0, must be at least 1",
      ("--bad=value",): "number: got 3, must be 4",
      ("--bad=file",): "[Errno 2] No such file or directory: '/no/such/file'",
    }.items():
      self.assertEqual(self.refused(*arguments), (2, f"error: {message}\n"))

  def test_an_interrupted_command_takes_one_line(self):
    self.assertEqual(self.refused("--bad=interrupted"), (130, "interrupted\n"))
    status, output = self.refused("--bad=interrupted run")
    self.assertEqual(status, 130)
    self.assertRegex(output, "^interrupted; the same command resumes with what is in out\n$")


if __name__ == "__main__":
  absltest.main()
