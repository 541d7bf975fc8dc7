"""The clock calls everything in turn, and counts what it should."""

import itertools
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.speed import timing


class TimingTest(absltest.TestCase):
  def test_rounds(self):
    clock, calls, records = timing.Clock(), [], []
    clock.add("first", lambda: calls.append("first"))
    clock.add("second", lambda *args: calls.append(args), prepare=lambda: ("prepared", 2), wait=lambda: calls.append("wait"))
    clock.run(2, records.append)
    second = ["wait", ("prepared", 2), "wait"]
    # The round that does not count, one backwards, one forwards.
    self.assertEqual(calls, ["first", *second, *second, "first", "first", *second])
    self.assertEqual({name: len(seconds) for name, seconds in clock.seconds.items()}, {"first": 2, "second": 2})
    self.assertEqual(records, [{name: seconds[at] for name, seconds in clock.seconds.items()} for at in range(2)])

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
    products = {dtype: timing.multiplications(dtype) for dtype in ("float32", "bfloat16")}
    self.assertEqual([name for name in products["float32"] if "NumPy" not in name], list(products["bfloat16"]))
    for limits in products.values():
      for name, limit in limits.items():
        rows, inner, columns = map(int, name.removeprefix("product ").removesuffix(", NumPy").split(" x "))
        self.assertEqual(limit.work, 2 * rows * inner * columns)
        self.assertEqual((limit.run().shape, limit.run().dtype), ((rows, columns), "float32"))
    readings = timing.readings()
    self.assertEqual({limit.work for limit in readings.values()}, {4 * 8192 * 8192})
    for limit in readings.values():
      self.assertTrue((np.asarray(limit.run()) >= 1).all())

  def test_best_rate(self):
    clock = timing.Clock()
    clock.seconds.update(slow=[3.0, 2.0], fast=[0.5, 1.0])
    limits = {"slow": timing.Limit(lambda: None, 8.0), "fast": timing.Limit(lambda: None, 1.0)}
    self.assertEqual(clock.best_rate(limits), 4.0)


if __name__ == "__main__":
  absltest.main()
