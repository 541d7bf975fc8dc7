"""Writes questions of the embedded models' task as a benchmark file: pictures of the test split, one question each.

  python -m experiments.benchmark_file --output=experiments/benchmark_files/digits.tsv
"""

from __future__ import annotations

import base64
import csv
import io
import pathlib

from absl import flags
import numpy as np
from PIL import Image

from experiments import command
from experiments import digits

_OUTPUT = flags.DEFINE_string("output", "experiments/benchmark_files/digits.tsv", "The TSV to write.")
_QUESTIONS = flags.DEFINE_integer("questions", 100, "How many, the kinds in turn.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 7, "Of the scenes.")
_PAPER = 16  # levels within which a pixel is paper
_LEVELS = 16  # that a channel keeps one of


def plain(picture: np.ndarray) -> Image.Image:
  """A picture without its noise, which a PNG cannot make small: even paper, and few levels of ink."""
  paper = np.median(picture.reshape(-1, 3), axis=0)
  near = np.abs(picture - paper).max(axis=-1, keepdims=True) < _PAPER
  pixels = np.where(near, paper, picture)
  return Image.fromarray((pixels // _LEVELS * _LEVELS + _LEVELS / 2).astype(np.uint8))


def main():
  path = pathlib.Path(_OUTPUT.value)
  command.output_directory("output", str(path.parent))
  with open(path, "w", newline="") as file:
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", "image", "question", "answer", "category"])
    for number, (picture, question) in enumerate(digits.dataset("test", _QUESTIONS.value, seed=_SEED.value)):
      buffer = io.BytesIO()
      plain(picture).save(buffer, "PNG", optimize=True)
      writer.writerow([number, base64.b64encode(buffer.getvalue()).decode(), question.text, question.answer, question.kind])
  print(f"{_QUESTIONS.value} questions, {path.stat().st_size / 1e6:.2f} MB: {path}")


if __name__ == "__main__":
  command.run(main)
