"""The files of an evaluation: table, plot, predictions and scores."""

import dataclasses
import json

from absl.testing import absltest

from experiments.evaluation import plan
from experiments.evaluation import published
from experiments.evaluation import results as results_lib
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import short_answer
from tests.reference.tsv_files import fake_table


class SevenB:
  """The size of Qwen2.5-VL-7B's decoder."""

  hidden_size, num_hidden_layers, num_attention_heads = 3584, 28, 28


class ReportTest(absltest.TestCase):
  def results(self, title, said, problems=()):
    """Two questions under all tokens, hawk 0.2 and random 0.2."""
    table = fake_table([((8, 8),)] * 2)
    benchmark = Benchmark(title=title, score=short_answer.score)
    rows = [
      {"problem": "bad"}
      if at in problems
      else {"tokens": 10, "answers": [{"prediction": texts[at], "kept": 2} for texts in said]}
      for at in range(2)
    ]
    scores = [[0.0 if at in problems else float(texts[at] == "a") for at in range(2)] for texts in said]
    totals = [benchmark.aggregate(table, texts, score) for texts, score in zip(said, scores)]
    return results_lib.Result(benchmark, table, rows, scores, totals)

  def test_table(self):
    settings = plan.settings(["hawk", "random"], [0.2])
    first = self.results("ChartQA", [["a", "a"], ["a", "b"], ["b", "b"]])
    second = self.results("TextVQA", [["a", "a"], ["a", "a"], ["b", "a"]], problems=(0,))
    text = results_lib.markdown(
      [first, second], settings, published.rows("qwen2_5_vl", SevenB, "native", ["ChartQA", "TextVQA"])
    )
    self.assertEqual(
      text.splitlines(),
      [
        "| visual tokens | method | ChartQA | TextVQA | mean share |",
        "|---|---|---:|---:|---:|",
        "| 100 % | unpruned | 100.0 (100.0 %) | 50.0 (100.0 %) | 100.0 % |",
        "| 100 % | paper: unpruned | 86.2 (100.0 %) | 85.2 (100.0 %) | 100.0 % |",
        "| 20 % | hawk | 50.0 (50.0 %) | 50.0 (100.0 %) | 75.0 % |",
        "| 20 % | random | 0.0 (0.0 %) | 50.0 (100.0 %) | 50.0 % |",
        "| 20 % | paper: HAWK | 76.8 (89.1 %) | 83.0 (97.4 %) | 96.2 % |",
        "| 20 % | authors: HAWK | 79.0 (91.7 %) | 83.2 (97.6 %) |  |",
        "| 20 % | paper: DivPrune | 69.0 (80.0 %) | 76.8 (90.1 %) | 91.6 % |",
        "| 20 % | paper: FastV | 72.3 (83.9 %) | 81.9 (96.1 %) | 92.3 % |",
        "",
        "TextVQA: 1 of 2 questions could not be asked and count as wrong.",
        'Rows labelled "paper:" or "authors:" show published figures, which were not measured here; their percentages '
        "refer to the paper's unpruned scores.",
      ],
    )
    left_out = dataclasses.replace(first, table=dataclasses.replace(first.table, skipped=3))
    self.assertIn("ChartQA: 3 rows without a picture", results_lib.markdown([left_out], settings, ()))
    self.assertEqual(published.rows("llava", SevenB, "native", ["TextVQA"]), ())
    labels = lambda *args: {row.label for row in published.rows(args[0], SevenB, *args[1:])}
    self.assertEqual(labels("qwen2_5_vl", "native", ["VideoMME"]), {"paper: HAWK on videos"})
    self.assertEqual(labels("internvl", "model", ["MME"]), {"paper: unpruned", "paper: HAWK", "paper: DivPrune"})
    self.assertEqual(results_lib.plot([first, second], settings)[:4], b"\x89PNG")
    line = json.loads(results_lib.predictions([second], settings).splitlines()[1])
    self.assertEqual(line["settings"]["random 0.2"], {"prediction": "a", "score": 1.0, "kept": 2})
    scores = json.loads(results_lib.scores([second], settings))["x"]
    self.assertEqual((scores["unreadable"], scores["settings"]["hawk 0.2"]["kept_share"]), (1, 0.2))


if __name__ == "__main__":
  absltest.main()
