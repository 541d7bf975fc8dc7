"""Writes questions of the digits task as benchmark files: about pictures of the test split, and about videos of them moving.

  python -m experiments.digits_benchmark --output_dir=experiments/benchmark_files

digits.tsv holds its pictures; digits_video.tsv names the clips, which are in a directory beside it. A clip's digits move one
cell to the right every second.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
import csv
import dataclasses
import io
import itertools
import pathlib

import numpy as np
from PIL import Image

from experiments.digits import task
from experiments.running import command
from experiments.running import files
from models.inputs import video

_PAPER = 16  # a pixel whose channels differ by less than this from the paper's is paper
_LEVELS = 16  # width of the ranges that a channel is rounded to
_FRAMES_PER_SECOND = 8
_KINDS_IN_MOTION = ("color_to_digit", "digit_to_color", "boxed")  # their answers stay the same while digits move


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  questions: int = command.option(100, "Number of questions about pictures, the kinds in turn.", least=1)
  clips: int = command.option(20, "Number of videos, with one question each.", least=1)
  seconds: int = command.option(3, "Seconds of video per clip.", least=1)
  seed: int = command.option(7, "Seed of the scenes.", least=0)
  output_dir: str = command.option("experiments/benchmark_files", "Directory for the files.")


def run(settings: Settings) -> tuple[pathlib.Path, pathlib.Path]:
  """Writes the files, and returns the paths of both tables."""
  output = files.output_directory("output_dir", settings.output_dir, results=("digits.tsv", "digits_video.tsv"))
  examples = task.dataset("test", settings.questions, settings.seed)
  pictures = _write(output / "digits.tsv", "image", ((encoded(picture), question) for picture, question in examples))

  clips = output / "digits_video"
  clips.mkdir(exist_ok=True)
  examples = task.dataset("test", len(task.KINDS) * settings.clips, settings.seed + 1)
  fitting = (example for example in examples if example[1].kind in _KINDS_IN_MOTION)
  rows = []
  for number, (picture, question) in enumerate(itertools.islice(fitting, settings.clips)):
    path = clips / f"{number:02d}.mp4"
    with files.naming(path):
      video.write(path, moving(plain(picture), settings.seconds), _FRAMES_PER_SECOND)
    rows.append((f"{clips.name}/{path.name}", question))
  return pictures, _write(output / "digits_video.tsv", "video_path", rows)


def plain(picture: np.ndarray) -> np.ndarray:
  """A picture without its noise, since no file format compresses noise: paper of one colour, and few levels of ink."""
  paper = np.median(picture.reshape(-1, 3), axis=0)
  near = np.abs(picture - paper).max(axis=-1, keepdims=True) < _PAPER
  pixels = np.where(near, paper, picture)
  return (pixels // _LEVELS * _LEVELS + _LEVELS / 2).astype(np.uint8)


def moving(picture: np.ndarray, seconds: int) -> list[np.ndarray]:
  """Frames in which everything moves one cell to the right every second, and returns on the left."""
  return [np.roll(picture, second * task.CELL, axis=1) for second in range(seconds) for _ in range(_FRAMES_PER_SECOND)]


def encoded(picture: np.ndarray) -> str:
  """A picture without its noise as a PNG in base64."""
  buffer = io.BytesIO()
  Image.fromarray(plain(picture)).save(buffer, "PNG", optimize=True)
  return base64.b64encode(buffer.getvalue()).decode()


def _write(path: pathlib.Path, media_column: str, rows: Iterable[tuple[str, task.Question]]) -> pathlib.Path:
  """Writes a TSV of questions; the first item of a row is the content of its picture or video column."""
  rows, content = list(rows), io.StringIO()
  writer = csv.writer(content, delimiter="\t", lineterminator="\n")
  writer.writerow(["index", media_column, "question", "answer", "category"])
  for number, (cell, question) in enumerate(rows):
    writer.writerow([number, cell, question.text, question.answer, question.kind])
  files.write(path, content.getvalue())
  print(f"{len(rows)} questions, {path.stat().st_size / 1e6:.2f} MB: {path}")
  return path


if __name__ == "__main__":
  command.main(Settings, run)
