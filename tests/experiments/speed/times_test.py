"""Rounds of an interrupted run, of another machine, and more of them than are asked for."""

import json
import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest

from experiments.running import environment
from experiments.speed import times


class Killed(BaseException):
  pass


class Clock:
  """Gives the next seconds of a list, round by round; the seconds 0 kill the run."""

  seconds: list[float] = []

  def add(self, name, function):
    del function
    self.name = name

  def run(self, rounds, record):
    for _ in range(rounds):
      if not (seconds := self.seconds.pop(0)):
        raise Killed
      record({self.name: seconds})


class TimesTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.path = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory())) / "milliseconds.jsonl"
    self.enterContext(mock.patch.object(times.timing, "Clock", Clock))
    programs = ({"decode": None}, {"whole@1": {"decode": 1.0}, "half@0.5": {"decode": 0.5}})
    self.enterContext(mock.patch.object(times.outcomes, "programs", return_value=programs))

  def measure(self, rounds, *seconds):
    """Medians when the clock says these seconds, all of which are needed."""
    variants = [types.SimpleNamespace(name=name) for name in ("whole@1", "half@0.5")]
    with mock.patch.object(Clock, "seconds", [*seconds]) as left:
      found = times.measure(self.path, {"model": "m"}, mock.MagicMock(), variants, rounds)
      self.assertEmpty(left)
    self.assertEqual(found["half@0.5"], found["whole@1"] / 2)
    return found["whole@1"]

  def test_an_interrupted_run_measures_what_is_missing(self):
    with self.assertRaises(Killed):
      self.measure(3, 0.001, 0.005, 0)
    self.assertEqual(self.measure(3, 0.003), 3.0)
    self.assertEqual(self.measure(3), 3.0)

  def test_medians_are_of_as_many_rounds_as_asked_for(self):
    self.measure(3, 0.001, 0.001, 0.004)
    self.assertEqual(self.measure(2), 1.0)
    self.assertEqual(self.measure(5, 0.004, 0.004), 4.0)

  def test_rounds_on_another_machine_do_not_count(self):
    for name, seconds in (("one", 0.001), ("two", 0.002), ("one", None)):
      with mock.patch.object(environment, "processor", return_value=name):
        self.measure(2, *([seconds] * 2 if seconds else []))
    records = [json.loads(line) for line in self.path.read_text().splitlines()[1:]]
    self.assertEqual([record["machine"].split("; ")[1] for record in records], ["one", "one", "two", "two"])

  def test_processor(self):
    text = "processor : 0\nmodel name\t: Some CPU @ 2 GHz\n\nprocessor : 1\nmodel name\t: Other\n"
    with mock.patch.object(environment.pathlib.Path, "read_text", return_value=text):
      self.assertEqual(environment.processor(), "Some CPU @ 2 GHz")
    for broken in (dict(return_value="Features : fp"), dict(side_effect=FileNotFoundError)):
      with mock.patch.object(environment.pathlib.Path, "read_text", **broken):
        self.assertEqual(environment.processor(), "unknown CPU")


if __name__ == "__main__":
  absltest.main()
