"""The tables of a benchmark, from seconds that are easy to divide."""

from absl.testing import absltest

from experiments.speed import report as report_lib

REPORT = {
  "config": "cpu",
  "dtype": "float32",
  "device": "2 CPU cores",
  "date": "2026-11-21",
  "versions": "jax 0.10.2",
  "rounds": 3,
  "steps": 10,
  "visual_tokens": 100,
  "text_tokens": 20,
  "matmul_flops_per_second": 1e11,
  "bandwidth_bytes_per_second": 1e10,
  "vision_flops": 1e11,
  "batch_sizes": [4],
  "baselines": [],
  "checks": [
    {"baseline": "one", "case": "1", "largest_logit_error": 2e-6, "equal_tokens": 11, "of": 11, "gap": None},
    {"baseline": "two", "case": "0.2", "largest_logit_error": 2e-2, "equal_tokens": 4, "of": 11, "gap": 3e-3},
  ],
  "cases": [
    {
      "keep_ratio": 1.0,
      "tokens": 120,
      "cache_bytes": 2e6,
      "language_flops": 4e10,
      "decode_bytes": 1e8,
      "compile_seconds": {"vision": 1.0, "prefill": 2.0, "decode": 3.0, "prune": 4.0, "language": 5.0},
      "temporary_bytes": {"vision": 7e6, "prefill": 9e6, "decode": None, "prune": 1e6, "language": 2e6},
      "peak_bytes": {"process": 5e8, "device": None},
    },
    {
      "keep_ratio": 0.2,
      "tokens": 40,
      "cache_bytes": 1e6,
      "language_flops": 1e10,
      "decode_bytes": 5e7,
      "compile_seconds": {"vision": 1.0, "prefill": 2.0, "decode": 3.0, "prune": 4.0, "language": 5.0},
      "temporary_bytes": {"vision": 7e6, "prefill": 3e6, "decode": None, "prune": 1e6, "language": 2e6},
      "peak_bytes": {"process": None, "device": None},
    },
  ],
  "seconds": {
    "vision": [2.1, 2.0, 2.0],
    "batch": [8.0],
    "one by one": [10.0],
    "first_token x4": [9.0],
    "decode x4": [0.5],
    "first_token 1": [3.0, 2.9, 3.2],
    "prefill 1": [1.0],
    "prune 1": [0.05],
    "language 1": [0.8],
    "decode 1": [0.25, 0.2, 0.2],
    "answer 1": [4.0],
    "first_token 0.2": [2.4],
    "prefill 0.2": [0.5],
    "prune 0.2": [0.05],
    "language 0.2": [0.3],
    "decode 0.2": [0.1],
    "answer 0.2": [3.0],
  },
}
TORCH = {
  "transformers float32 vision": [2.0],
  "transformers float32 batch": [16.0],
  "transformers float32 first_token 1": [6.0],
  "transformers float32 decode 1": [0.3],
  "transformers float32 first_token 0.2": [1.2],
  "transformers float32 decode 0.2": [0.3],
  "transformers float32 first_token x4": [10.0],
  "transformers float32 decode x4": [1.0],
}


def rows(text):
  """Cells of the rows of both tables, without their headings."""
  cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
  return [row for row in cells if row[0] in ("1", "0.2")]


class ReportTest(absltest.TestCase):
  def test_alone(self):
    text = report_lib.summarize(REPORT)
    whole, pruned, whole_shares, pruned_shares = rows(text)
    self.assertEqual(
      whole,
      [
        "1",
        "120",
        "3000.0 (2900 to 3200)",
        "2000.0 (2000 to 2100)",
        "50.0 (50 to 50)",
        "800.0 (800 to 800)",
        "150.0",
        "20.00",
        "4000.0 (4000 to 4000)",
        "2.0",
        "9",
        "500",
        "6.0",
      ],
    )
    self.assertEqual(pruned[6:8], ["50.0", "10.00"])
    # Time and FLOPs over the unpruned, scoring, shares of the machine's limits, and what pruning saves.
    self.assertEqual(whole_shares[1:], ["1.000", "1.000", "1.00", "5.0 %", "50 %", "50 %", "100.0 %", "100.0 %", "55.0 %"])
    self.assertEqual(pruned_shares[1:], ["0.375", "0.250", "1.50", "10.0 %", "33 %", "50 %", "80.0 %", "75.0 %", "52.5 %"])
    self.assertIn("Vision: 100 GFLOP, at best 1000 ms, 50 % of that rate.", text)
    self.assertIn("11 tokens each: 0.50 samples/s; one by one 0.40.", text)
    self.assertIn("| batch of 1 | 2400.0 (2400 to 2400) | 100.0 |\n| batch of 4 | 9000.0 (9000 to 9000) | 80.0 |", text)
    self.assertIn("one, kept 1: logits differ by 2.0e-06 of the largest, 11 of 11 tokens are equal; two, kept 0.2: ", text)
    self.assertIn("4 of 11 tokens are equal (the first two that differ, by 3.0e-03 of the largest logit).", text)

  def test_beside_a_baseline(self):
    text = report_lib.summarize({**REPORT, "baselines": ["transformers float32"], "seconds": {**REPORT["seconds"], **TORCH}})
    whole, pruned, *_ = rows(text)
    self.assertEqual(whole[13:], ["6000.0 (6000 to 6000)", "2.00", "30.00", "1.50"])
    self.assertEqual(pruned[13:], ["1200.0 (1200 to 1200)", "0.50", "30.00", "3.00"])
    self.assertIn("| batch of 4 | 9000.0 (9000 to 9000) | 80.0 | 10000.0 (10000 to 10000) | 40.0 |", text)
    self.assertIn("one by one 0.40; transformers float32 one by one 0.25, 2.00 times the batch's seconds.", text)

  def test_beside_cuda_graphs(self):
    graphs = {f"transformers float32 decode {name}, CUDA graphs": [0.1] for name in ("1", "0.2", "x4")}
    seconds = {**REPORT["seconds"], **TORCH, **graphs}
    text = report_lib.summarize({**REPORT, "baselines": ["transformers float32"], "seconds": seconds})
    whole, pruned, *_ = rows(text)
    self.assertEqual(whole[15:], ["30.00", "1.50", "10.00", "0.50"])
    self.assertEqual(pruned[15:], ["30.00", "3.00", "10.00", "1.00"])
    self.assertIn("| 80.0 | 10000.0 (10000 to 10000) | 40.0 | 400.0 |", text)

  def test_stages_faster_than_the_limits(self):
    report_lib.check_limits(REPORT)
    for name, value in (("matmul_flops_per_second", 4e10), ("bandwidth_bytes_per_second", 4e9), ("vision_flops", 3e11)):
      with self.assertRaisesRegex(ValueError, "limits: stages are faster than the machine's limits"):
        report_lib.check_limits({**REPORT, name: value})
    # One round is enough.
    seconds = {**REPORT["seconds"], "decode 1": [0.2, 0.09, 0.2]}
    with self.assertRaisesRegex(ValueError, "decoding 1': '111 %'"):
      report_lib.check_limits({**REPORT, "seconds": seconds})


if __name__ == "__main__":
  absltest.main()
