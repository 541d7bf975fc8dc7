"""The benchmarks: their prompts equal VLMEvalKit's (goldens/metrics.json), which files are theirs, and what they refuse."""

import json
import pathlib
import re

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.evaluation import benchmarks
from experiments.evaluation.benchmarks import benchmark as benchmark_lib
from experiments.evaluation.benchmarks import mmbench
from experiments.evaluation.benchmarks import textvqa
from experiments.evaluation.benchmarks import tsv
from experiments.evaluation.benchmarks.questions import choice
from experiments.evaluation.benchmarks.questions import short_answer
from experiments.evaluation.benchmarks.questions import video_choice
from experiments.evaluation.benchmarks.questions import video_times
from models import registry
from models.inputs.video import Video
from tests.reference import tsv_files

GOLDENS, FAMILIES = (
  json.loads((pathlib.Path(__file__).parents[2] / "goldens" / name).read_text())
  for name in ("metrics.json", "family_prompts.json")
)


class PromptsTest(tsv_files.TestCase):
  @parameterized.parameters(*range(len(GOLDENS["prompts"])))
  def test_equal_vlmevalkits(self, number):
    name, fields, qwen, llava = GOLDENS["prompts"][number]
    extra = {"category": "c", "image_path": "p", "l2-category": "l"}
    index = "VD_a_1_0_0_0" if name == "HallusionBench" else 0
    row = {**({} if "video" in fields else self.row() | extra), **fields, "index": index}
    table = tsv.read(self.write(name, row))
    benchmark = benchmarks.find(name, table.columns)
    prompts = {"plain": qwen, "llava": llava, "llava_onevision": qwen}
    prompts |= {family: prompts[number] for family, prompts in FAMILIES.items()}
    self.assertEqual({port.prompt_family for port in registry.PORTS.values()}, {*prompts})
    self.assertEqual({family: benchmark.prompt(table.rows[0], family) for family in prompts}, prompts)

  def test_times_of_a_video(self):
    video = Video(np.zeros([3, 2, 2, 3], np.uint8), (0.0, 1.25, 2.5), 1.5)
    self.assertEqual(
      video_times.introduction([video], "llava_onevision"),
      "The video lasts for 4.50 seconds, and 3 frames are uniformly sampled from it. These frames are located at "
      "0.00s, 1.25s, 2.50s. Please answer the following questions related to this video.\n",
    )
    self.assertEqual(video_times.introduction([video], "plain") + video_times.introduction([], "llava_onevision"), "")


class BenchmarksTest(tsv_files.TestCase):
  def test_yes_or_no_answers(self):
    table = tsv.read(self.write("MME", self.row(category="OCR", image_path="p", answer="maybe")))
    table = benchmarks.find("MME", table.columns).check(table)
    self.assertRegex(table.rows[0].problem, "MME.tsv: row 1 .index 0., column answer: is 'maybe', must be Yes or No")

  def refused(self, path, message):
    with self.assertRaisesRegex(ValueError, message):
      table = tsv.read(path)
      benchmarks.find(table.name, table.columns).check(table)

  def test_files_that_are_refused(self):
    self.refused(str(self.directory / "none.tsv"), "data: there is no file .*none.tsv")
    empty = self.directory / "empty.tsv"
    empty.touch()
    self.refused(str(empty), "empty.tsv is empty")
    self.refused(self.write("x", columns=["index", "image", "question", "answer"]), "x.tsv has no row below its header")
    self.refused(self.write("x", columns=["index", "image"]), "row 0 .the header.: lacks the columns question, answer")
    self.refused(self.write("x", self.row("a"), self.row("b"), self.row("a")), "rows 1 and 3, column index: both have a")
    self.refused(self.write("x", self.row("")), "row 1, column index: is empty")
    self.refused(self.write("x", {"index": 1, "question": "Q", "answer": "a"}), "lacks a column image, image_path")
    self.refused(self.write("MME", self.row(answer="Yes", category="OCR")), "lacks image_path, which MME's score needs")
    self.refused(self.write("CCBench", self.row("a", A="x", B="y", answer="A")), "column index: must be a number")
    self.refused(self.write("HallusionBench", self.row("a_b", answer="Yes", **{"l2-category": "c"})), "must name set, fig")
    ragged = self.directory / "ragged.tsv"
    ragged.write_text("index\timage\tquestion\tanswer\n1\tx\n")
    self.refused(str(ragged), "ragged.tsv: row 1 has 2 cells, the header has 4 columns")
    ragged.write_bytes(b"index\timage\tquestion\tanswer\n1\tx\t\xff\ta\n")
    self.refused(str(ragged), "ragged.tsv: row 1 cannot be read .*utf-8")

  @parameterized.parameters(
    ("MME-RealWorld", ("A", "B"), choice.prompt, choice.score),
    ("digits", (), benchmark_lib.as_written, short_answer.score),
    ("MMBench_DEV_EN_V11", ("A",), choice.prompt, choice.score),
    ("clips", ("candidates",), video_choice.prompt, video_choice.score),
    ("ChartQAPro", (), benchmark_lib.as_written, short_answer.score),
    ("TextVQA_VAL", (), short_answer.prompt, textvqa.score),
  )
  def test_which_benchmark_a_file_is(self, name, columns, prompt, score):
    benchmark = benchmarks.find(name, ("index", "image", "question", "answer", *columns))
    self.assertEqual((benchmark.prompt, benchmark.score), (prompt, score))
    self.assertEqual(benchmark.aggregate, mmbench.aggregate if name.startswith("MMBench") else benchmark_lib.mean_score)

  def test_every_file_is_of_one_benchmark(self):
    names = {
      "AI2D_TEST": "AI2D",
      "CCBench": "CCBench",
      "ChartQA_TEST": "ChartQA",
      "HallusionBench": "HallBench",
      "MMBench_DEV_EN": "MMBench",
      "MME": "MME",
      "OCRVQA_TESTCORE": "OCRVQA",
      "POPE": "POPE",
      "RealWorldQA": "RealWorldQA",
      "ScienceQA_TEST": "ScienceQA",
      "TextVQA_VAL": "TextVQA",
      "Video-MME": "VideoMME",
      "WorldSense": "WorldSense",
    }
    for name, title in names.items():
      fitting = [found.title for found in benchmarks.BENCHMARKS if re.fullmatch(found.pattern, name, re.IGNORECASE)]
      self.assertEqual(fitting, [title], msg=name)
    self.assertCountEqual(names.values(), [found.title for found in benchmarks.BENCHMARKS])

  def test_scores_of_a_table(self):
    path = self.write(
      "AI2D_TEST", *(self.row(i, A="cat", B="dog", answer="AB"[i % 2], category="xy"[i // 2]) for i in range(4))
    )
    table = tsv.read(path)
    benchmark = benchmarks.find(table.name, table.columns)
    said = ["A", "dog", "I see a B", "A"]
    scores = [benchmark.score(row, text) for row, text in zip(table.rows, said)]
    self.assertEqual(scores, [1, 1, 0, 0])
    self.assertEqual(benchmark.aggregate(table, said, scores), {"overall": 50, "x": 100, "y": 0})

  @parameterized.parameters(
    ("MME", {"category": "OCR", "image_path": "p"}, ["0", "1"], {"total": 50, "perception": 50, "reasoning": 0, "OCR": 50}),
    (
      "HallusionBench",
      {"l2-category": "c"},
      ["VD_c_1_0_0_0", "VD_c_1_0_1_0"],
      {"average": 100 / 3, "aAcc": 50, "fAcc": 50, "qAcc": 0},
    ),
    (
      "POPE",
      {"category": "c"},
      ["0", "1"],
      {"F1": 200 / 3, "accuracy": 50, "precision": 50, "recall": 100, "c F1": 200 / 3, "c accuracy": 50},
    ),
  )
  def test_scores_of_yes_no_tables(self, name, fields, indices, expected):
    rows = [self.row(index, answer=answer, **fields) for index, answer in zip(indices, ("Yes", "No"))]
    table = tsv.read(self.write(name, *rows))
    benchmark = benchmarks.find(name, table.columns)
    said = ["yes", "Yes, it is."]
    totals = benchmark.aggregate(table, said, [benchmark.score(row, text) for row, text in zip(table.rows, said)])
    self.assertEqual(list(totals)[0], benchmark.headline)
    self.assertEqual(set(totals), set(expected))
    for part, value in expected.items():
      self.assertAlmostEqual(totals[part], value, msg=part)

  def test_scores_of_rotations(self):
    turns = [(1, "A"), (10**6 + 1, "B"), (2, "A"), (10**6 + 2, "B")]
    rows = [self.row(index, A="cat", B="dog", answer=answer, category=f"c{index % 10}") for index, answer in turns]
    table = tsv.read(self.write("MMBench_DEV_EN", *rows))
    self.assertEqual(mmbench.aggregate(table, ["A", "B", "A", "A"], [1, 1, 1, 0]), {"overall": 50, "c1": 100, "c2": 0})


if __name__ == "__main__":
  absltest.main()
