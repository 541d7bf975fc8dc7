"""What an evaluation plans, answers and reports, on files made here."""

import dataclasses
import json
import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments import embedded
from experiments.benchmarks import published
from experiments.benchmarks import suites
from experiments.benchmarks import tsv
from experiments.evaluation import answering
from experiments.evaluation import gallery
from experiments.evaluation import plan
from experiments.evaluation import results as results_lib
from models import load_model
from models import load_processor

MODEL = str(embedded.DIRECTORY / "qwen2_5_vl")
FILES = pathlib.Path(embedded.__file__).parent / "benchmark_files"
SETTINGS = plan.settings(["evs"], [0.5])


def fake_table(sizes):
  rows = tuple(tsv.Row(at + 1, str(at), {"question": "Q", "answer": "a"}, {}, size, 0, None if size else "bad")
               for at, size in enumerate(sizes))
  return tsv.Table(pathlib.Path("x.tsv"), ("index", "image", "question", "answer"), rows, 0)


class PlanTest(parameterized.TestCase):

  def test_batches_hold_like_sizes_and_every_row_once(self):
    table = fake_table([((w, w),) for w in (100, 500, 100, 500, 100)] + [(), ((100, 100), (100, 100))])
    batches = plan.batches([table, table], 2, None, None)
    self.assertEqual([batch.rows for batch in batches[:3]], [(0, 2), (4, 6), (1, 3)])
    self.assertEqual([batch.number for batch in batches], list(range(6)))
    self.assertEqual([batch.table for batch in batches], [0] * 3 + [1] * 3)

  def test_limits_on_pixels_make_sizes_alike(self):
    table = fake_table([((w, w),) for w in (100, 2000, 300)])
    self.assertEqual(plan.batches([table], 3, 1008**2, 1008**2)[0].rows, (0, 1, 2))

  @parameterized.parameters(
      (["hawk", "hawk"], [0.5], "selector: .*twice"), (["hawk"], [0.5, 0.5], "keep_ratio: .*twice"),
      (["hawk"], [1.0], "keep_ratio: got 1.0, must be between 0 and 1"), (["hawk"], [0.0], "keep_ratio: got 0.0"))
  def test_settings_refused(self, selectors, ratios, message):
    with self.assertRaisesRegex(ValueError, message):
      plan.settings(selectors, ratios)


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
    options = answering.Options(**{"batch_size": 2, "max_new_tokens": 4, "max_frames": 4} | options)
    return answering.Answerer(self.model, self.params, self.processor, "benchmark", weights, SETTINGS, options)

  def test_videos(self):
    table = tsv.read(str(FILES / "digits_video.tsv"), limit=2)
    suite, answerer = suites.find(table.name, table.columns), self.answerer()
    batches = plan.batches([table], 2, None, None)
    entry = answerer.answer(answerer.prepare(batches[0], table, suite), table, drawn={0})
    for at in (0, 1):
      every, half = entry["rows"][at]["answers"]
      # 4 frames of 192 x 192 pixels are two slices of 12 x 12 tokens.
      self.assertEqual((entry["rows"][at]["tokens"], every["kept"], half["kept"]), (288, 288, 144))
      self.assertNotEmpty(every["prediction"])
    # The first slice comes first, and is all that half the budget holds.
    self.assertEqual(entry["rows"][0]["answers"][1]["tokens"], list(range(144)))

    entries = {0: json.loads(json.dumps(entry))}
    results = results_lib.collect([table], [suite], batches, entries, len(SETTINGS))
    page = gallery.page(results, SETTINGS, [frozenset([0])], self.model, self.processor, answerer.options, "about </script>")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    question = data["questions"][0]
    self.assertEqual(data["about"], "about </script>")
    self.assertEqual(question["views"], [[0, 12, 12, 0], [1, 12, 12, 0]])
    self.assertLen(question["pictures"], 2)
    self.assertEqual([answer["selector"] for answer in question["answers"]], ["all tokens", "evs"])

  def test_a_question_that_does_not_fit_is_told_and_the_others_answered(self):
    table = tsv.read(str(FILES / "digits.tsv"), limit=2)
    long = table.rows[1].fields | {"question": "digit " * 9000}
    table = tsv.Table(table.path, table.columns, (table.rows[0], tsv.Row(**{**vars(table.rows[1]), "fields": long})), 0)
    suite, answerer = suites.find(table.name, table.columns), self.answerer()
    prepared = answerer.prepare(plan.Batch(0, 0, (0, 1)), table, suite)
    self.assertEqual(prepared.rows, (0,))
    self.assertRegex(prepared.problems[1], r"digits.tsv: row 2 \(index 1\), column image: input_ids: .*8192 positions")

  @parameterized.parameters(
      (dict(fps=-1.0), "fps: got -1"), (dict(max_frames=1), "max_frames: got 1"),
      (dict(min_pixels=9000, max_pixels=1000), "min_pixels and max_pixels: got 9000 and 1000"),
      (dict(max_new_tokens=9000), "max_new_tokens: got 9000"))
  def test_options_no_question_can_be_asked_with(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      self.answerer(**options).check()

  def test_a_video_longer_than_the_model(self):
    table = tsv.read(str(FILES / "digits_video.tsv"), limit=1)
    suite = suites.find(table.name, table.columns)
    prepared = self.answerer(batch_size=1, max_new_tokens=8185).prepare(plan.Batch(0, 0, (0,)), table, suite)
    self.assertIsNone(prepared.inputs)
    self.assertRegex(prepared.problems[0], r"_video.tsv: row 1 \(index 0\), column video_path: max_new_tokens: got 8185")
    entry = self.answerer().answer(prepared, table)
    self.assertEqual(list(entry["rows"]), [0])


class ReportTest(absltest.TestCase):

  def results(self, title, said, problems=()):
    """Two questions under all tokens, hawk 0.198 and random 0.198."""
    table = fake_table([((8, 8),)] * 2)
    suite = suites.Suite(title, "plain", "exact")
    rows = [{"problem": "bad"} if at in problems else
            {"tokens": 10, "answers": [{"prediction": texts[at], "kept": 2} for texts in said]} for at in range(2)]
    scores = [[0.0 if at in problems else float(texts[at] == "a") for at in range(2)] for texts in said]
    totals = [suites.aggregate(suite, table, texts, score) for texts, score in zip(said, scores)]
    return results_lib.Result(suite, table, rows, scores, totals)

  def test_table(self):
    settings = plan.settings(["hawk", "random"], [0.2])
    first = self.results("ChartQA", [["a", "a"], ["a", "b"], ["b", "b"]])
    second = self.results("TextVQA", [["a", "a"], ["a", "a"], ["b", "a"]], problems=(0,))
    text = results_lib.markdown([first, second], settings, published.rows(*SEVEN_B, "native"))
    self.assertEqual(text.splitlines(), [
        "| visual tokens | method | ChartQA | TextVQA | mean share |",
        "|---|---|---:|---:|---:|",
        "| 100 % | unpruned | 100.0 (100.0 %) | 50.0 (100.0 %) | 100.0 % |",
        "| 100 % | paper: unpruned | 86.2 (100.0 %) | 85.2 (100.0 %) | 100.0 % |",
        "| 20 % | hawk | 50.0 (50.0 %) | 50.0 (100.0 %) | 75.0 % |",
        "| 20 % | random | 0.0 (0.0 %) | 50.0 (100.0 %) | 50.0 % |",
        "| 20 % | paper: HAWK | 76.8 (89.1 %) | 83.0 (97.4 %) | 96.2 % |",
        "",
        "TextVQA: 1 of 2 questions could not be asked and count as wrong.",
        "Rows that begin with paper: are the paper's figures, not ours; shares there are of the paper's unpruned scores.",
    ])
    left_out = dataclasses.replace(first, table=dataclasses.replace(first.table, skipped=3))
    self.assertIn("ChartQA: 3 rows without a picture", results_lib.markdown([left_out], settings, ()))
    self.assertEqual(published.rows("llava", SEVEN_B[1], "native"), ())
    self.assertEqual(results_lib.plot([first, second], settings)[:4], b"\x89PNG")
    line = json.loads(results_lib.predictions([second], settings).splitlines()[1])
    self.assertEqual(line["settings"]["random 0.2"], {"prediction": "a", "score": 1.0, "kept": 2})
    scores = json.loads(results_lib.scores([second], settings))["x"]
    self.assertEqual((scores["unreadable"], scores["settings"]["hawk 0.2"]["kept_share"]), (1, 0.2))


class SevenB:
  hidden_size, num_hidden_layers, num_attention_heads = 3584, 28, 28


SEVEN_B = ("qwen2_5_vl", SevenB)

if __name__ == "__main__":
  absltest.main()
