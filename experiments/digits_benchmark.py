"""Writes questions of the embedded models' task as benchmark files: pictures of the test split, and videos of them moving.

  python -m experiments.digits_benchmark --output_dir=experiments/benchmark_files

digits.tsv holds its pictures; digits_video.tsv names the clips beside it. A clip's digits move one cell to the right every
second.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
import csv
import io
import pathlib

from absl import flags
import numpy as np
from PIL import Image

from experiments import command
from experiments import digits
from models import video

_QUESTIONS = flags.DEFINE_integer("questions", 100, "About pictures, the kinds in turn.", lower_bound=1)
_CLIPS = flags.DEFINE_integer("clips", 20, "Questions about videos, a clip each.", lower_bound=1)
_SECONDS = flags.DEFINE_integer("seconds", 3, "Of a clip.", lower_bound=1)
_SEED = flags.DEFINE_integer("seed", 7, "Of the scenes.")
_OUTPUT_DIR = flags.DEFINE_string("output_dir", "experiments/benchmark_files", "Where the files go.")
_PAPER = 16  # levels within which a pixel is paper
_LEVELS = 16  # that a channel keeps one of
_FRAMES_PER_SECOND = 8
_KINDS_IN_MOTION = ("color_to_digit", "digit_to_color", "boxed")  # the answers stay the same while digits move


def plain(picture: np.ndarray) -> np.ndarray:
  """A picture without its noise, which no file format makes small: even paper, and few levels of ink."""
  paper = np.median(picture.reshape(-1, 3), axis=0)
  near = np.abs(picture - paper).max(axis=-1, keepdims=True) < _PAPER
  pixels = np.where(near, paper, picture)
  return (pixels // _LEVELS * _LEVELS + _LEVELS / 2).astype(np.uint8)


def moving(picture: np.ndarray, seconds: int) -> list[np.ndarray]:
  """Frames in which everything moves one cell to the right every second, and comes back in on the left."""
  return [np.roll(picture, second * digits.CELL, axis=1) for second in range(seconds) for _ in range(_FRAMES_PER_SECOND)]


def write(path: pathlib.Path, picture_column: str, rows: Iterable[tuple[str, digits.Question]]) -> None:
  """A TSV of what stands in the picture column, and the question."""
  with open(path, "w", newline="") as file:
    writer = csv.writer(file, delimiter="\t", lineterminator="\n")
    writer.writerow(["index", picture_column, "question", "answer", "category"])
    for number, (cell, question) in enumerate(rows):
      writer.writerow([number, cell, question.text, question.answer, question.kind])
  print(f"{number + 1} questions, {path.stat().st_size / 1e6:.2f} MB: {path}")


def encoded(picture: np.ndarray) -> str:
  """Base64 of a PNG."""
  buffer = io.BytesIO()
  Image.fromarray(plain(picture)).save(buffer, "PNG", optimize=True)
  return base64.b64encode(buffer.getvalue()).decode()


def main():
  output = command.output_directory("output_dir", _OUTPUT_DIR.value)
  examples = digits.dataset("test", _QUESTIONS.value, seed=_SEED.value)
  write(output / "digits.tsv", "image", ((encoded(picture), question) for picture, question in examples))

  clips = output / "digits_video"
  clips.mkdir(exist_ok=True)
  examples = digits.dataset("test", 5 * _CLIPS.value, seed=_SEED.value + 1)
  chosen = [(picture, question) for picture, question in examples if question.kind in _KINDS_IN_MOTION][:_CLIPS.value]
  for number, (picture, _) in enumerate(chosen):
    video.write(clips / f"{number:02d}.mp4", moving(plain(picture), _SECONDS.value), _FRAMES_PER_SECOND)
  write(output / "digits_video.tsv", "video_path",
        ((f"{clips.name}/{number:02d}.mp4", question) for number, (_, question) in enumerate(chosen)))


if __name__ == "__main__":
  command.run(main)
