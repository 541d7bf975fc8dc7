"""The clock calls everything in turn, and counts what it should."""

import itertools
from unittest import mock

from absl.testing import absltest

from experiments.speed import timing


class TimingTest(absltest.TestCase):
  def test_rounds(self):
    clock, calls = timing.Clock(), []
    clock.add("first", lambda: calls.append("first"))
    clock.add("second", lambda *args: calls.append(args), prepare=lambda: ("prepared", 2), wait=lambda: calls.append("wait"))
    clock.run(2)
    second = ["wait", ("prepared", 2), "wait"]
    # The round that does not count, one backwards, one forwards.
    self.assertEqual(calls, ["first", *second, *second, "first", "first", *second])
    self.assertEqual({name: len(seconds) for name, seconds in clock.seconds.items()}, {"first": 2, "second": 2})

  def test_preparation_is_not_measured(self):
    clock, calls, readings = timing.Clock(), [], itertools.count()
    clock.add("function", lambda: calls.append("function"), prepare=lambda: calls.append("prepare"))

    def read():
      calls.append("clock")
      return float(next(readings))

    with mock.patch.object(timing.time, "perf_counter", read):
      clock.run(1)
    self.assertEqual(calls, ["prepare", "clock", "function", "clock"] * 2)
    self.assertEqual(clock.seconds["function"], [1.0])

  def test_median(self):
    clock = timing.Clock()
    clock.seconds["function"] = [3.0, 1.0, 2.0]
    self.assertEqual(clock.median("function"), 2.0)

  def test_limits(self):
    product, reading = timing.multiplication("bfloat16"), timing.reading("bfloat16")
    rows, columns = product.run().shape
    self.assertEqual((product.work, columns), (2 * rows * columns * columns, 2048))
    self.assertEqual(reading.work, 2 * reading.run().shape[0] * 8192)


if __name__ == "__main__":
  absltest.main()
