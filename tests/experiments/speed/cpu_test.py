"""Every CPU workaround beside what it replaces, at small sizes, and the table that models/cpu.py shows."""

import dataclasses
import inspect
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp

from experiments.speed import cpu as measurement
from models import cpu

# Long enough for attention in parts.
SETTINGS = measurement.Settings(tokens=400, patches=768, rounds=1)


class CpuTest(parameterized.TestCase):
  def test_rows_and_the_table_of_the_module(self):
    with (
      mock.patch.multiple(measurement, _HIDDEN=256, _INTERMEDIATE=704, _VOCABULARY=2048),
      mock.patch.object(cpu, "LEAST_SIZE", 1),
    ):
      rows = measurement.run(SETTINGS)
    self.assertEqual(set(row["workaround"] for row in rows), set(measurement.REPLACED))
    for row in rows:
      self.assertEqual(row["gain"], row["plain_seconds"] / row["seconds"])
      self.assertLess(row["difference"], {"float32": 1e-5, "bfloat16": 1e-2}[row["dtype"]])
    first_cells = lambda lines: [line.split("|")[1:3] for line in lines if line.startswith("|")]
    self.assertEqual(first_cells(inspect.getdoc(cpu).splitlines()), first_cells(measurement.summarize(rows)))

  def test_gains_of_one_workaround(self):
    rows = [
      {"workaround": name, "gain": gain}
      for name, gain in (
        ("row", 10.4),
        ("row", 2.0),
        ("bfloat16 row", 1.0),
        ("bfloat16 rows", 1.0),
        ("transposed", 1.0),
        ("look_up", 1.0),
        ("bfloat16 product", 1.0),
        ("bfloat16 logits", 1.0),
        ("attend_by_head", 1.234),
        ("kept", 3.0),
        ("kept", 2.96),
      )
    ]
    self.assertEqual(
      [line.split("|")[3].strip() for line in measurement.summarize(rows)[2:]],
      ["2.0 to 10.4 times", *["1.0 times"] * 6, "1.2 times", "3.0 times"],
    )

  @parameterized.parameters((1.1, "1.0e-01"), (jnp.nan, "nan"))
  def test_wrong_results_are_refused(self, factor, difference):
    case = next(case for case in measurement.make_cases(8, 8) if case.workaround == "attend_by_head")
    wrong = dataclasses.replace(case, ours=lambda: case.plain() * factor)
    with self.assertRaisesRegex(ValueError, f"attend_by_head: results differ by {difference} for a causal prompt of 8"):
      measurement.check(wrong)


if __name__ == "__main__":
  absltest.main()
