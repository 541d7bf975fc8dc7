"""Files to questions: prompts as VLMEvalKit's (goldens/metrics.json), and what is refused."""

import base64
import csv
import io
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments.benchmarks import prompts
from experiments.benchmarks import suites
from experiments.benchmarks import tsv

GOLDENS = json.loads((pathlib.Path(__file__).parents[1] / "goldens" / "metrics.json").read_text())


def encoded(width=8, height=8, shade=0):
  buffer = io.BytesIO()
  pixels = np.random.default_rng(shade).integers(0, 255, [height, width, 3], np.uint8)
  Image.fromarray(pixels).save(buffer, "PNG")
  return base64.b64encode(buffer.getvalue()).decode()


class Files(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def write(self, name, *rows, columns=None):
    path = self.directory / f"{name}.tsv"
    columns = columns or list(dict.fromkeys(column for row in rows for column in row))
    with open(path, "w", newline="") as file:
      writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
      writer.writeheader()
      writer.writerows(rows)
    return path

  def row(self, index=0, **fields):
    return {"index": index, "image": encoded(), "question": "Q?", "answer": "x"} | fields


class PromptsTest(Files):

  @parameterized.parameters(*range(len(GOLDENS["prompts"])))
  def test_equal_vlmevalkits(self, number):
    name, fields, qwen, llava = GOLDENS["prompts"][number]
    extra = {} if "video" in fields else {"image": encoded(), "category": "c", "image_path": "p", "l2-category": "l"}
    index = "VD_a_1_0_0_0" if name == "HallusionBench" else 0
    table = tsv.read(str(self.write(name, {"index": index, **extra, **fields})))
    suite = suites.find(name, table.columns)
    self.assertEqual(prompts.text(suite, table.rows[0], "benchmark"), qwen)
    self.assertEqual(prompts.text(suite, table.rows[0], "llava"), llava)

  def test_families_cover_the_ports(self):
    from models import registry
    self.assertEqual(set(prompts.FAMILIES), set(registry.PORTS))


class TsvTest(Files):

  def test_pictures(self):
    first, second = encoded(12, 8), encoded(8, 8, shade=1)
    Image.new("RGB", (6, 4)).save(self.directory / "file.png")
    table = tsv.read(str(self.write(
        "x", self.row("a", image=first), self.row("b", image="a"), self.row("c", image=str([first, second])),
        self.row("d", image="", question="two\nlines\t\"quoted\"", answer="y"))))
    self.assertEqual([row.sizes for row in table.rows], [((12, 8),), ((12, 8),), ((12, 8), (8, 8))])
    self.assertEqual(table.skipped, 1)
    pictures = [table.pictures(row) for row in table.rows]
    np.testing.assert_array_equal(pictures[0][0], pictures[1][0])
    self.assertEqual([picture.size for picture in pictures[2]], [(12, 8), (8, 8)])
    table = tsv.read(str(self.write("y", {"index": 1, "image_path": "file.png", "question": "two\nlines", "answer": "a\tb"},
                                    {"index": 2, "image_path": "['file.png', 'file.png']", "question": "Q", "answer": "b"})))
    self.assertEqual([row.sizes for row in table.rows], [((6, 4),), ((6, 4), (6, 4))])
    self.assertEqual((table.rows[0].fields["question"], table.rows[0].fields["answer"]), ("two\nlines", "a\tb"))
    self.assertLen(table.pictures(table.rows[1]), 2)

  def test_a_row_without_a_picture_among_files(self):
    Image.new("RGB", (6, 4)).save(self.directory / "file.png")
    row = {"image_path": "file.png", "question": "Q", "answer": "a"}
    table = tsv.read(str(self.write("x", {"index": 1, **row}, {"index": 2, **row, "image_path": ""})))
    self.assertEqual([row.problem for row in table.rows], [None, None])
    self.assertEqual([len(table.pictures(row)) for row in table.rows], [1, 0])

  def test_limit(self):
    path = str(self.write("x", *(self.row(index, image=encoded() if index < 2 else "0") for index in range(5))))
    self.assertLen(tsv.read(path, limit=3).rows, 3)
    self.assertLen(tsv.read(path).rows, 5)

  @parameterized.parameters(
      ([dict(index=0, image="x" * 80, question="Q", answer="a")], "row 1 .index 0., column image: the content is not a pic"),
      ([dict(index=0, image="?" * 80, question="Q", answer="a")], "column image: is not base64"),
      ([dict(index=0, image=base64.b64encode(b"no picture" * 20).decode(), question="Q", answer="a")],
       "x.tsv: row 1 .index 0., column image: .*not a picture"),
      ([dict(index=0, image="7", question="Q", answer="a")], "column image: '7' is neither base64 of a picture nor"),
      ([dict(index=0, image_path="none.png", question="Q", answer="a")], "column image_path: there is no file none.png"),
      ([dict(index=0, image=encoded(), question="Q", answer="")], "row 1 .index 0., column answer: is empty"),
      ([dict(index=0, image=encoded(), question="Q", A="a", B="b", answer="C")],
       "column answer: is 'C', the row's options are A, B"),
      ([dict(index=0, video_path="none.mp4", question="Q", answer="C")], "column video_path: there is no file none.mp4"),
  )
  def test_problems_of_a_row(self, rows, message):
    table = tsv.read(str(self.write("x", *rows)))
    self.assertRegex(table.rows[0].problem, message)

  def test_a_truncated_picture_is_found_on_reading(self):
    content = base64.b64decode(encoded(64, 64))
    table = tsv.read(str(self.write("x", self.row(image=base64.b64encode(content[:-400]).decode()))))
    with self.assertRaisesRegex(tsv.RowError, "x.tsv: row 1 .index 0., column image: .*truncated"):
      table.pictures(table.rows[0])

  def test_yes_or_no_answers(self):
    path = self.write("MME", self.row(category="OCR", image_path="p", answer="maybe"))
    table = tsv.read(str(path))
    table = suites.checked(suites.find("MME", table.columns), table)
    self.assertRegex(table.rows[0].problem, "MME.tsv: row 1 .index 0., column answer: is 'maybe', must be Yes or No")

  def refused(self, path, message):
    with self.assertRaisesRegex(ValueError, message):
      table = tsv.read(str(path))
      suites.checked(suites.find(table.name, table.columns), table)

  def test_files_that_are_refused(self):
    self.refused(self.directory / "none.tsv", "data: there is no file .*none.tsv")
    empty = self.directory / "empty.tsv"
    empty.touch()
    self.refused(empty, "empty.tsv is empty")
    self.refused(self.write("x", columns=["index", "image", "question", "answer"]), "x.tsv has no row below its header")
    self.refused(self.write("x", {"index": 1, "image": encoded()}), "row 0 .the header.: lacks the columns question, answer")
    self.refused(self.write("x", self.row("a"), self.row("b"), self.row("a")), "rows 1 and 3, column index: both have a")
    self.refused(self.write("x", self.row("")), "row 1, column index: is empty")
    self.refused(self.write("x", {"index": 1, "question": "Q", "answer": "a"}), "lacks a column image, image_path")
    self.refused(self.write("MME", self.row(answer="Yes", category="OCR")), "lacks image_path, which MME's score needs")
    self.refused(self.write("CCBench", self.row("a", A="x", B="y", answer="A")), "column index: must be a number")
    self.refused(self.write("HallusionBench", self.row("a_b", answer="Yes", **{"l2-category": "c"})), "must name set, fig")
    ragged = self.directory / "ragged.tsv"
    ragged.write_text("index\timage\tquestion\tanswer\n1\tx\n")
    self.refused(ragged, "ragged.tsv: row 1 has 2 cells, the header has 4 columns")
    ragged.write_bytes(b"index\timage\tquestion\tanswer\n1\tx\t\xff\ta\n")
    self.refused(ragged, "ragged.tsv: row 1 cannot be read .*utf-8")

  @parameterized.parameters(
      ("MME-RealWorld", ("A", "B"), "choice", "accuracy"), ("digits", (), "plain", "exact"),
      ("MMBench_DEV_EN_V11", ("A",), "circular", "accuracy"), ("clips", ("candidates",), "video_choice", "accuracy"),
      ("ChartQAPro", (), "plain", "exact"), ("TextVQA_VAL", (), "short", "consensus"))
  def test_which_benchmark_a_file_is(self, name, columns, kind, metric):
    suite = suites.find(name, ("index", "image", "question", "answer", *columns))
    self.assertEqual((suite.kind, suite.metric), (kind, metric))

  def test_scores_of_a_table(self):
    path = self.write("AI2D_TEST", *(self.row(i, A="cat", B="dog", answer="AB"[i % 2], category="xy"[i // 2])
                                     for i in range(4)))
    table = tsv.read(str(path))
    suite = suites.find(table.name, table.columns)
    said = ["A", "dog", "I see a B", "A"]
    scores = [suites.score(suite, row, text) for row, text in zip(table.rows, said)]
    self.assertEqual(scores, [1, 1, 0, 0])
    self.assertEqual(suites.aggregate(suite, table, said, scores), {"overall": 50, "x": 100, "y": 0})


if __name__ == "__main__":
  absltest.main()
