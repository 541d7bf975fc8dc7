"""How batches are prepared and answered, and what of it the gallery shows."""

import json
import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.digits import embedded
from experiments.evaluation import answering
from experiments.evaluation import benchmarks
from experiments.evaluation import gallery
from experiments.evaluation import plan
from experiments.evaluation import results as results_lib
from experiments.evaluation.benchmarks import tsv
from models import load_model
from models import load_processor

MODEL = str(embedded.DIRECTORY / "qwen2_5_vl")
FILES = pathlib.Path(__file__).parents[3] / "experiments" / "benchmark_files"
SETTINGS = plan.settings(["evs"], [0.5], stages=["tower:0.5, input:0.3"])


def make_options(**options):
  return answering.Options(**{"batch_size": 2, "max_new_tokens": 4, "max_frames": 4} | options)


class PrefetchTest(absltest.TestCase):
  def test_order_and_how_far_ahead(self):
    made = []
    results = answering.prefetched(lambda item: made.append(item) or item * 2, range(20), ahead=3)
    self.assertEqual(next(results), 0)
    self.assertLessEqual(len(made), 4)
    self.assertEqual(list(results), list(range(2, 40, 2)))

  def test_errors_come_out(self):
    def fail(item):
      raise KeyError(item)

    with self.assertRaises(KeyError):
      list(answering.prefetched(fail, range(3)))


class AnsweringTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = load_model(MODEL)
    cls.processor = load_processor(MODEL)

  def answerer(self, **options):
    weights = np.full(self.model.config.text.num_attention_heads, 0.125, np.float32)
    return answering.Answerer(self.model, self.params, self.processor, "plain", weights, SETTINGS, make_options(**options))

  def test_videos(self):
    table = tsv.read(str(FILES / "digits_video.tsv"), limit=2)
    benchmark, answerer = benchmarks.find(table.name, table.columns), self.answerer()
    batches = plan.batches([table], 2, None, None)
    entry = answerer.answer(answerer.prepare(batches[0], table, benchmark), table, drawn={0})
    for at in (0, 1):
      every, half, staged = entry["rows"][at]["answers"]
      # 4 frames of 192 x 192 pixels are two slices of 12 x 12 tokens.
      self.assertEqual((entry["rows"][at]["tokens"], every["kept"], half["kept"]), (288, 288, 144))
      self.assertEqual(staged["kept"], 87)
      self.assertNotEmpty(every["prediction"])
    # Only what the gallery shows is recorded.
    self.assertIn("views", entry["rows"][0])
    self.assertNotIn("views", entry["rows"][1])
    self.assertNotIn("tokens", entry["rows"][1]["answers"][1])
    # Tokens of the first slice are picked first, and use up the whole budget.
    self.assertEqual(entry["rows"][0]["answers"][1]["tokens"], list(range(144)))
    # What the tower and the input left.
    left = entry["rows"][0]["answers"][2]["stages"]
    self.assertEqual([len(tokens) for tokens in left], [144, 87])
    self.assertContainsSubset(left[1], left[0])
    self.assertEqual(left[1], entry["rows"][0]["answers"][2]["tokens"])

    entries = {0: json.loads(json.dumps(entry))}
    results = results_lib.collect([table], [benchmark], batches, entries, len(SETTINGS))
    processor = answerer.processor
    reader = answerer.options.reader(processor)
    page = gallery.page(results, SETTINGS, [frozenset([0])], reader, processor.media.as_seen, "about </script>")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    question = data["questions"][0]
    self.assertEqual(data["about"], "about </script>")
    self.assertEqual(question["views"], [[0, 12, 12, 0], [1, 12, 12, 0]])
    self.assertLen(question["pictures"], 2)
    self.assertEqual(
      [answer["selector"] for answer in question["answers"]], ["all tokens", "evs", "evs, tower:0.5, input:0.3"]
    )
    self.assertEqual([answer["stages"] for answer in question["answers"]], [None, None, left])

  def test_a_question_that_does_not_fit_is_reported_and_the_others_are_answered(self):
    table = tsv.read(str(FILES / "digits.tsv"), limit=2)
    long = table.rows[1].fields | {"question": "digit " * 9000}
    table = tsv.Table(table.path, table.columns, (table.rows[0], tsv.Row(**{**vars(table.rows[1]), "fields": long})), 0)
    benchmark, answerer = benchmarks.find(table.name, table.columns), self.answerer()
    prepared = answerer.prepare(plan.Batch(0, 0, (0, 1)), table, benchmark)
    self.assertEqual(prepared.rows, (0,))
    self.assertRegex(prepared.problems[1], r"digits.tsv: row 2 \(index 1\), column image: input_ids: .*8192 positions")

  @parameterized.parameters(
    (dict(fps=-1.0), "fps: got -1"),
    (dict(max_frames=1), "max_frames: got 1"),
    (dict(min_pixels=9000, max_pixels=1000), "min_pixels and max_pixels: got 9000 and 1000"),
    (dict(max_new_tokens=9000), "max_new_tokens: got 9000"),
  )
  def test_options_no_question_can_be_asked_with(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      answering.check(self.model, self.processor, make_options(**options))

  def test_a_video_longer_than_the_model(self):
    table = tsv.read(str(FILES / "digits_video.tsv"), limit=1)
    benchmark = benchmarks.find(table.name, table.columns)
    prepared = self.answerer(batch_size=1, max_new_tokens=8185).prepare(plan.Batch(0, 0, (0,)), table, benchmark)
    self.assertIsNone(prepared.inputs)
    self.assertRegex(prepared.problems[0], r"_video.tsv: row 1 \(index 0\), column video_path: max_new_tokens: got 8185")
    entry = self.answerer().answer(prepared, table)
    self.assertEqual(list(entry["rows"]), [0])


if __name__ == "__main__":
  absltest.main()
