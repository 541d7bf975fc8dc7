"""Batches of questions and single questions get the same answers."""

from unittest import mock

from absl.testing import absltest

from experiments.speed import throughput

SETTINGS = throughput.Settings(limit=3, batch_size=2, selector=("random",), keep_ratio=(0.2,), rounds=1, max_new_tokens=2)


class ThroughputTest(absltest.TestCase):
  def test_both_ways(self):
    rows = throughput.run(SETTINGS)
    self.assertEqual([(row["settings"], row["questions"]) for row in rows], [(1, 3), (2, 3)])
    for row in rows:
      self.assertEqual({name: len(seconds) for name, seconds in row["seconds"].items()}, {"one by one": 1, "batches": 1})

  def test_other_answers_are_refused(self):
    with (
      mock.patch.object(throughput, "one_by_one", return_value={0: ["7"]}),
      mock.patch.object(throughput, "batched", return_value={0: ["8"]}),
    ):
      with self.assertRaisesRegex(ValueError, "batch_size: the answers of batches differ"):
        throughput.run(SETTINGS)


if __name__ == "__main__":
  absltest.main()
