"""Files and settings that nobody meant to give: each is used, or refused by a ValueError that names it.

FUZZ_CASES=10000 python -m pytest tests/experiments/fuzz_test.py   # cases of each kind
"""

import base64
import contextlib
import csv
import dataclasses
import importlib
import io
import json
import math
import os
import pathlib
import random
import re
import string
import tempfile

from absl import flags
from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments.estimation import data
from experiments.evaluation import benchmarks
from experiments.evaluation.benchmarks import tsv
from experiments.running import command
from experiments.running import journal
from models.inputs import video
from tests.reference import tsv_files

CASES = int(os.environ.get("FUZZ_CASES", "300"))
COMMANDS = (
  "accuracy",
  "benchmark",
  "compare",
  "compile_tpu",
  "convert",
  "digits_benchmark",
  "evaluate",
  "explore",
  "generate",
  "head_importance",
  "estimation.over_models",
  "study",
  "sweep",
  "train",
)
SECRET = (1, 2, 3)  # the color of a picture that no file may show


def mutated(rng, content, most=4):
  """Bytes of which a few have been changed, lost, doubled or cut off."""
  content = bytearray(content)
  for _ in range(rng.randint(1, most)):
    at = rng.randrange(len(content) + 1)
    change = rng.randrange(5)
    if change == 0 and at < len(content):
      content[at] ^= 1 << rng.randrange(8)
    elif change == 1:
      content[at:at] = rng.choice([b"\x00", b"\n", b"\t", b'"', b"\xff", b"[1]", b"{}", b"9" * 300, b"\xe2\x80\xa8"])
    elif change == 2:
      del content[at : at + rng.randint(1, 40)]
    elif change == 3:
      content[at:at] = content[at : at + rng.randint(1, 200)]
    else:
      del content[at:]
  return bytes(content)


@contextlib.contextmanager
def noted(case):
  """A context that adds a case to exceptions."""
  try:
    yield
  except Exception as error:
    error.add_note(f"case: {case!r:.300}")
    raise


class TsvTest(parameterized.TestCase):
  """Benchmark files, up to the scores of their answers."""

  # Names of files, with the answers that fit their benchmark.
  NAMES = {
    "x": ("A", "12 %", "Yes"),
    "MME": ("Yes", "No"),
    "HallusionBench": ("Yes", "No"),
    "POPE": ("Yes", "No"),
    "TextVQA_VAL": ("['a', 'b']", "a"),
    "ChartQA_TEST": ("12 %", "a"),
    "MMBench_DEV": ("A",),
    "VideoMME": ("A", "B"),
    "ScienceQA": ("A",),
  }
  TEXTS = ("", "<image>", "a\nb", '"', "[1, 'x']", "overall", "\u2028", "x" * 2000)

  def setUp(self):
    super().setUp()
    root = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.directory = root / "data"
    self.directory.mkdir()
    Image.new("RGB", (8, 8), SECRET).save(root / "secret.png")
    (self.directory / "link.png").symlink_to(root / "secret.png")
    Image.new("RGB", (8, 6)).save(self.directory / "here.png")
    video.write(self.directory / "here.mp4", [np.zeros([16, 16, 3], np.uint8)] * 4, 2)
    (self.directory / "not.mp4").write_bytes(b"no video")
    self.paths = ["here.png", "link.png", "../secret.png", str(root / "secret.png"), "a" * 300, "", ".", "not.mp4", "\0"]

  def picture(self, rng):
    """A picture file, whole or not."""
    buffer = io.BytesIO()
    kind = rng.choice(["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "EPS", "ICO", "TGA"])
    Image.fromarray(np.full([8, 12, 3], rng.randrange(256), np.uint8)).save(buffer, kind)
    content = buffer.getvalue()
    return base64.b64encode(mutated(rng, content) if rng.random() < 0.7 else content).decode()

  def cell(self, rng, name, column, rows):
    """What a cell may hold, mostly right."""
    if rng.random() < 0.9:
      number = rng.randrange(10**5)
      usual = {
        "image": tsv_files.encoded(),
        "image_path": "here.png",
        "video": "here.mp4",
        "video_path": "here.mp4",
        "index": f"VD_figure_0_1_2_{number}" if name == "HallusionBench" else str(number),
        "answer": rng.choice(self.NAMES[name]),
        "candidates": "['A. a', 'B. b']",
      }
      return usual.get(column, "Q?")
    odd = {
      "image": lambda: [self.picture(rng), self.picture(rng), str([self.picture(rng)] * 2), str(rng.randrange(rows)), ""],
      "index": lambda: [str(rng.randrange(10**7)), "VD_figure_0_1_2_3", "9" * 5000, "-1", "0"],
      "answer": lambda: ["A", "Yes", "No", "12 %", "1e999", "nan", "['a', 'b']", "[]", "", "x" * 500],
    }
    if column in ("image_path", "video", "video_path"):
      return rng.choice([*self.paths, str(self.paths[:2]), "[]", "[" * 200 + "]" * 200])
    return rng.choice(odd.get(column, lambda: self.TEXTS)())

  def content(self, rng, name):
    """A file, mostly of the right form."""
    media = rng.sample(["image", "image_path", "video", "video_path"], rng.randint(1, 2))
    columns = ["index", "question", "answer", *media]
    columns += rng.sample(["A", "B", "hint", "category", "l2-category", "split", "candidates"], rng.randrange(8))
    if rng.random() < 0.9:
      needed = [column for kind in benchmarks.BENCHMARKS if re.fullmatch(kind.pattern, name) for column in kind.columns]
      columns = list(dict.fromkeys([*columns, *needed]))
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns if rng.random() < 0.9 else columns[:-1] + [rng.choice(columns)])
    count = rng.randint(1, 4)
    for _ in range(count):
      writer.writerow([self.cell(rng, name, column, count) for column in columns])
    content = text.getvalue().encode()
    return mutated(rng, content, most=2) if rng.random() < 0.3 else content

  def use(self, path):
    """As the evaluation does, with the rows that it would ask."""
    table = tsv.read(str(path))
    benchmark = benchmarks.find(table.name, table.columns)
    table = benchmark.check(table)
    rows = 0
    for row in table.rows:
      if row.problem is not None:
        self.assertIn(path.name, row.problem)
        continue
      try:
        for picture in table.pictures(row):
          self.assertNotEqual(picture.getpixel((0, 0)), SECRET)
        table.videos(row, lambda path: video.read(path, 2.0, 4))
      except tsv.RowError as error:
        self.assertIn(f"row {row.number} ", str(error))
        continue
      self.assertIsInstance(benchmark.prompt(row, "llava"), str)
      rows += 1
    said = ["A. yes", "['a']", ""] * len(table.rows)
    scores = [0.0 if row.problem else benchmark.score(row, prediction) for row, prediction in zip(table.rows, said)]
    totals = benchmark.aggregate(table, said[: len(scores)], scores)
    self.assertTrue(math.isfinite(totals[benchmark.headline]), totals)
    return rows

  def test_files(self):
    rng, asked, refused = random.Random(0), 0, 0
    for number in range(CASES):
      name = rng.choice([*self.NAMES])
      path = self.directory / f"{name}.tsv"
      path.write_bytes(self.content(rng, name))
      with noted(number):
        try:
          asked += self.use(path)
        except ValueError as error:
          self.assertIn(path.name, str(error))
          refused += 1
    self.assertGreater(asked, CASES / 3)  # or nothing has been tried
    self.assertLess(refused, 0.8 * CASES)


class ExamplesTest(absltest.TestCase):
  def test_files(self):
    """Calibration files."""
    rng, read = random.Random(2), 0
    path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / "data.jsonl"
    Image.new("RGB", (8, 6)).save(path.with_name("here.png"))
    row = {"image": "here.png", "question": "Q\u2028?", "answer": "é", "dataset": "d"}
    values = [None, 3, 1.5, [], {}, "", "none.png", "x" * 300, "\0", ".", "data.jsonl", [["x"]]]
    for _ in range(CASES):
      rows = [
        row | ({rng.choice([*row]): rng.choice(values)} if rng.random() < 0.3 else {}) for _ in range(rng.randint(1, 3))
      ]
      content = "".join(json.dumps(row, ensure_ascii=rng.random() < 0.5) + "\n" for row in rows).encode()
      path.write_bytes(mutated(rng, content, most=1) if rng.random() < 0.5 else content)
      with noted(path.read_bytes()):
        try:
          examples = data.from_jsonl(str(path))
        except ValueError as error:
          self.assertIn(f"data: {path}" if "cannot read" not in str(error) else str(path), str(error))
          continue
        for example in examples:
          self.assertEqual(example.picture.shape, (6, 8, 3))
          self.assertIsInstance(example.question + example.answer + example.dataset, str)
        read += 1
    self.assertBetween(read, CASES / 10, 0.9 * CASES)


class JournalTest(absltest.TestCase):
  def test_damage_is_found(self):
    """What is read is what was written, but for lines that were cut off at the end."""
    rng, refused = random.Random(1), 0
    path = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory())) / "records.jsonl"
    settings = {"model": "x", "ratios": [0.1, 0.2]}
    records = [
      {"batch": number, "rows": {str(number): {"answers": ["0", "é"], "kept": 0.1 + number}}} for number in range(4)
    ]
    first = journal.Journal(path, settings)
    for record in records:
      first.append(record)
    first.close()
    whole = path.read_bytes()
    for number in range(CASES):
      path.write_bytes(mutated(rng, whole))
      with noted(number):
        try:
          again = journal.Journal(path, settings)
        except ValueError as error:
          self.assertIn(f"output_dir: {path}", str(error))
          refused += 1
          continue
        kept = len(again.records)
        self.assertEqual(again.records, records[:kept])
        for record in records[kept:]:
          again.append(record)
        again.close()
        self.assertEqual(path.read_bytes(), whole)
    self.assertBetween(refused, CASES / 4, CASES - 1)


class SettingsTest(parameterized.TestCase):
  VALUES = (None, True, 0, -1, 1, 3, 2**31, 10**400, 0.0, 0.5, -0.5, 1.5, math.nan, math.inf, 1e-300, "", "hawk", "cdpruner")
  VALUES += ("uniform", "one_hot:9", "a=b", "data:2", "\ud800", "x" * 5000, b"x", [], {}, (), (0.5, 0.5), ("hawk", "hawk"))
  VALUES += (
    (None,),
    (math.nan,),
    ("a=b", "a=c"),
    object(),
    1j,
    np.float64(0.5),
    np.int64(3),
    np.zeros(2),
    pathlib.Path("x"),
  )

  def check(self, kind, make):
    """Calls `make`; returns whether the settings were accepted, with everything that is derived from them."""
    names = {field.name for field in dataclasses.fields(kind)}
    try:
      made = make()
      for name in vars(kind):
        if isinstance(getattr(kind, name), property):
          getattr(made, name)
    except ValueError as error:
      self.assertIn(str(error).replace(" and ", ":").split(":")[0], names)
      return False
    return True

  @parameterized.parameters(*COMMANDS)
  def test_values(self, name):
    rng, kind = random.Random(name), importlib.import_module(f"experiments.{name}").Settings
    fields = [field.name for field in dataclasses.fields(kind)]
    needed = {"evaluate": dict(data=("x.tsv",)), "convert": dict(model="a", output_dir="b")}.get(name, {})
    accepted = 0
    for _ in range(CASES // 3):
      changes = {rng.choice(fields): rng.choice(self.VALUES) for _ in range(rng.choice([1, 1, 2]))}
      with noted(changes):
        accepted += self.check(kind, lambda changes=changes: kind(**needed | changes))
    self.assertBetween(accepted, 1, CASES // 3 - 1)

  @parameterized.parameters(*COMMANDS)
  def test_flags(self, name):
    rng, kind = random.Random(name), importlib.import_module(f"experiments.{name}").Settings
    texts = ["", "0", "-1", "1e999", "nan", "0.5", "9" * 30, "true", "hawk", "[]", "a=b", "x" * 300, "é", "--"]
    texts += ["".join(rng.choices(string.printable, k=8)) for _ in range(5)]
    for _ in range(CASES // 15):
      values = flags.FlagValues()
      command.define_flags(kind, values)
      arguments = [f"--{rng.choice(dataclasses.fields(kind)).name}={rng.choice(texts)}" for _ in range(rng.randint(1, 2))]
      with noted(arguments):
        try:
          values([name, *arguments])
        except flags.Error:
          continue
        self.check(kind, lambda values=values: command.read_flags(kind, values))


if __name__ == "__main__":
  absltest.main()
