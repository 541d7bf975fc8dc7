"""Small TSV files and tables for tests of the evaluation."""

from __future__ import annotations

import base64
import csv
import io
import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np
from PIL import Image

from experiments.evaluation.benchmarks import tsv


def encoded(width: int = 8, height: int = 8, shade: int = 0) -> str:
  """A picture of noise as base64."""
  buffer = io.BytesIO()
  pixels = np.random.default_rng(shade).integers(0, 255, [height, width, 3], np.uint8)
  Image.fromarray(pixels).save(buffer, "PNG")
  return base64.b64encode(buffer.getvalue()).decode()


def fake_table(sizes) -> tsv.Table:
  """A table without a file, whose rows have pictures of these sizes; rows without sizes have a problem."""
  rows = tuple(
    tsv.Row(at + 1, str(at), {"question": "Q", "answer": "a"}, {}, size, 0, None if size else "bad")
    for at, size in enumerate(sizes)
  )
  return tsv.Table(pathlib.Path("x.tsv"), ("index", "image", "question", "answer"), rows, 0)


class TestCase(parameterized.TestCase):
  """Writes files into a directory of its own."""

  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def write(self, name, *rows, columns=None) -> str:
    """Writes rows, dicts by column, and returns the file's path."""
    path = self.directory / f"{name}.tsv"
    columns = columns or list(dict.fromkeys(column for row in rows for column in row))
    with open(path, "w", newline="") as file:
      writer = csv.DictWriter(file, columns, delimiter="\t", lineterminator="\n")
      writer.writeheader()
      writer.writerows(rows)
    return str(path)

  def row(self, index=0, **fields):
    """A row with a picture."""
    return {"index": index, "image": encoded(), "question": "Q?", "answer": "x"} | fields
