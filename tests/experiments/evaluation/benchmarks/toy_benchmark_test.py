"""A benchmark of one file is asked, scored and reported, without a change anywhere else."""

import json
from unittest import mock

from absl.testing import absltest
from PIL import Image

from experiments import evaluate
from experiments.digits import embedded
from experiments.evaluation import answering
from experiments.evaluation import benchmarks
from experiments.evaluation.benchmarks.benchmark import Benchmark
from models import load_processor
from tests.reference import tsv_files


def prompt(row, family):
  """Asks for a color that has a column of its own, in LLaVA's or in the plain wording."""
  return f"Which digit is {row.fields['color']}?" + " Say its name." * (family == "llava")


def score(row, prediction):
  """Half of a point for a wrong answer."""
  return 1.0 if prediction == row.answer else 0.5


def aggregate(table, predictions, scores):
  """The sum, and the number of colors."""
  del predictions
  return {"points": 100 * sum(scores), "colors": len(set(table.cells("color")))}


BENCHMARK = Benchmark(
  title="Toy", pattern=r"Toy(_\w+)?", columns=("color",), headline="points", prompt=prompt, score=score, aggregate=aggregate
)


class ToyBenchmarkTest(tsv_files.TestCase):
  def test_evaluated(self):
    Image.open(embedded.DIRECTORY / "picture.png").save(self.directory / "picture.png")
    row = {"image_path": "picture.png", "question": "Q?", "color": "red"}
    path = self.write("Toy_TEST", {"index": 0, **row, "answer": "0"}, {"index": 1, **row, "answer": "none"})
    settings = evaluate.Settings(
      data=(path,), keep_ratio=(0.5,), batch_size=2, max_new_tokens=4, gallery=1, output_dir=str(self.directory / "out")
    )
    with (
      mock.patch.object(benchmarks, "BENCHMARKS", [*benchmarks.BENCHMARKS, BENCHMARK]),
      mock.patch.object(answering, "generate", wraps=answering.generate) as generate,
    ):
      result = evaluate.run(settings).results[0]

    text = load_processor(settings.model).tokenizer.decode(generate.call_args.args[2].prompt.text_tokens[0])
    self.assertIn("Which digit is red?", text)
    self.assertNotIn("Q?", text)
    self.assertIs(result.benchmark, BENCHMARK)
    self.assertEqual(list(result.scores), [[1.0, 0.5]] * 2)
    self.assertIn(
      "| visual tokens | method | Toy | mean share |\n|---|---|---:|---:|\n"
      "| 100 % | unpruned | 150.0 (100.0 %) | 100.0 % |\n| 50 % | hawk | 150.0 (100.0 %) | 100.0 % |\n",
      (self.directory / "out" / "table.md").read_text(),
    )
    written = json.loads((self.directory / "out" / "scores.json").read_text())["Toy_TEST"]
    self.assertEqual((written["benchmark"], written["headline"]), ("Toy", "points"))
    self.assertEqual(written["settings"]["hawk 0.5"]["scores"], {"points": 150.0, "colors": 1})

  def test_needed_columns(self):
    path = self.write("Toy", self.row())
    with (
      mock.patch.object(benchmarks, "BENCHMARKS", [BENCHMARK]),
      self.assertRaisesRegex(ValueError, "Toy.tsv, row 0 .the header.: lacks color, which Toy's score needs"),
    ):
      evaluate.run(evaluate.Settings(data=(path,), output_dir=str(self.directory / "out")))


if __name__ == "__main__":
  absltest.main()
