"""The most memory that a function takes."""

import pathlib
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments.speed import memory

MEGABYTES = 400


class MemoryTest(absltest.TestCase):
  def test_peak_is_the_functions_own(self):
    large = memory.peak(lambda: np.ones(MEGABYTES << 17))["process"]
    small = memory.peak(lambda: None)["process"]
    if small is None:
      self.skipTest("this system cannot restart its count")
    # The array was freed before the second call.
    self.assertGreater(large - small, 0.9 * MEGABYTES * (1 << 20))

  def test_a_system_that_cannot_restart_its_count(self):
    with mock.patch.object(memory, "_PROCESS", pathlib.Path("/nowhere")):
      self.assertIsNone(memory.peak(lambda: None)["process"])


if __name__ == "__main__":
  absltest.main()
