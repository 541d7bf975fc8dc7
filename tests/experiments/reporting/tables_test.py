"""Markdown tables."""

from absl.testing import absltest

from experiments.reporting import tables


class TablesTest(absltest.TestCase):
  def test_table(self):
    self.assertEqual(
      tables.table(["", "seconds", "MB"], [["prefill", 0.5, ""], ["decode", 2, "7"]]),
      [
        "| | seconds | MB |",
        "|---|---:|---:|",
        "| prefill | 0.5 |  |",
        "| decode | 2 | 7 |",
      ],
    )

  def test_alignment(self):
    self.assertEqual(tables.table(["a", "b"], [], left=0), ["| a | b |", "|---:|---:|"])
    self.assertEqual(tables.table(["a", "b", "c"], [], left=2)[1], "|---|---|---:|")


if __name__ == "__main__":
  absltest.main()
