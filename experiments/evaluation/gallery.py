"""report.html: sampled questions, their pictures, and the tokens that every setting kept. One file, which opens offline."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
import io
import json
import math
import pathlib
from typing import Any

from absl import logging
import numpy as np
from PIL import Image

from experiments.evaluation import plan
from experiments.evaluation.benchmarks.tsv import RowError
from experiments.evaluation.benchmarks.tsv import Table
from experiments.evaluation.results import Result
from experiments.evaluation.results import titles
from models.inputs.video import Video

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
_LARGEST = 448  # pixels of a picture's longer side


def sampled(tables: Sequence[Table], count: int) -> list[frozenset[int]]:
  """Positions of the rows that the gallery shows, evenly spread over each file."""
  return [
    frozenset(np.unique(np.linspace(0, len(table.rows) - 1, min(count, len(table.rows))).astype(int)).tolist())
    for table in tables
  ]


def page(
  results: Sequence[Result],
  settings: Sequence[plan.Setting],
  shown: Sequence[frozenset[int]],
  read_video: Callable[[pathlib.Path], Video],
  as_seen: Callable[[Sequence[Image.Image]], Sequence[Image.Image]],
  about: str,
) -> str:
  """The whole page.

  Args:
    results: of every file.
    settings: in the order of the answers.
    shown: of `sampled`; the answers of these rows hold views and tokens.
    read_video: of the run's `Options.reader`.
    as_seen: of the model's `MediaProcessor`.
    about: a line at the top.
  """
  questions = []
  for result, positions in zip(results, shown):
    for at in sorted(positions):
      if "problem" not in result.answers[at]:
        try:
          questions.append(_question(result, at, settings, read_video, as_seen))
        except RowError as error:  # a file that has gone since the question was asked
          logging.warning("not in report.html: %s", error)
  data = json.dumps({"about": about, "summary": _summary(results, settings), "questions": questions}, ensure_ascii=False)
  # "</script>" inside a string would end the element that holds the data.
  return _TEMPLATE.read_text().replace("DATA", data.replace("<", "\\u003c"), 1)


def _summary(results, settings) -> dict[str, Any]:
  """The table at the top: the headline score of every file under every setting, and the mean share of tokens kept."""
  shares = [
    [
      answer["kept"] / entry["tokens"]
      for result in results
      for entry in result.answers
      if entry.get("tokens")
      for answer in [entry["answers"][number]]
    ]
    for number in range(len(settings))
  ]
  scores = zip(*(result.headlines for result in results))
  per_layer = lambda setting: "" if setting.mean_share is None else f", {100 * setting.mean_share:.0f} % per layer"
  kept = [f"{100 * np.mean(share):.0f} %{per_layer(setting)}" if share else "" for setting, share in zip(settings, shares)]
  rows = [
    [plan.name(setting), share, *(f"{score:.1f}" for score in each)] for setting, share, each in zip(settings, kept, scores)
  ]
  return {"columns": ["setting", "tokens kept", *titles(results)], "rows": rows}


def _question(result, at, settings, read_video, as_seen) -> Mapping[str, Any]:
  row, entry = result.table.rows[at], result.answers[at]
  images, videos = as_seen(result.table.pictures(row)), result.table.videos(row, read_video)
  if videos:
    # Each temporal slice shows as its first frame.
    step = -(-len(videos[0].frames) // (1 + entry["views"][-1][0]))
    images = [Image.fromarray(frame) for frame in videos[0].frames[::step]]
  # Several pictures form a grid of about the size of one.
  side = min(_LARGEST, 2 * _LARGEST // math.ceil(math.sqrt(max(1, len(images)))))
  answers = [
    {
      "name": plan.name(setting),
      "selector": "all tokens" if setting.keep_ratio is None else setting.selector,
      "share": setting.keep_ratio or 1.0,
      "prediction": answer["prediction"],
      "right": bool(scores[at] > 0.5),
      "kept": answer["kept"],
      "tokens": answer.get("tokens"),
      "stages": answer.get("stages"),
    }
    for setting, answer, scores in zip(settings, entry["answers"], result.scores)
  ]
  return {
    "file": result.table.name,
    "index": row.index,
    "question": row.fields["question"],
    "answer": row.fields["answer"],
    "tokens": entry["tokens"],
    "pictures": [_embedded(image, side) for image in images],
    "answers": answers,
    "views": entry["views"],
    "scores": entry.get("map"),
  }


def _embedded(picture: Image.Image, side: int) -> str:
  picture = picture.copy()
  picture.thumbnail((side, side))
  buffer = io.BytesIO()
  picture.save(buffer, "JPEG", quality=85)
  return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
