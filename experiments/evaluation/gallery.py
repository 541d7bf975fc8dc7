"""report.html: sampled questions, their pictures, and what every selector kept of them. One file, opens offline."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
import io
import json
import math
import pathlib
from typing import Any

import numpy as np
from PIL import Image

from experiments.benchmarks.tsv import Table
from experiments.evaluation.plan import Setting
from experiments.evaluation.results import Result

_TEMPLATE = pathlib.Path(__file__).with_suffix(".html")
_LARGEST = 448  # pixels of a picture's longer side


def sampled(tables: Sequence[Table], count: int) -> list[frozenset[int]]:
  """Positions of the rows that the gallery shows, evenly spread over each file."""
  return [frozenset(np.unique(np.linspace(0, len(table.rows) - 1, min(count, len(table.rows))).astype(int)).tolist())
          for table in tables]


def page(results: Sequence[Result], settings: Sequence[Setting], shown: Sequence[frozenset[int]], model, processor, options,
         about: str) -> str:
  """The whole page.

  Args:
    results: of every file.
    settings: their order.
    shown: of `sampled`.
    model: a port; it says how visual tokens lie on a picture.
    processor: of the model.
    options: `answering.Options` of the run.
    about: a line at the top.
  """
  questions = []
  for result, positions in zip(results, shown):
    for at in sorted(positions):
      if "problem" not in result.answers[at]:
        questions.append(_question(result, at, settings, model, processor, options))
  data = json.dumps({"about": about, "questions": questions}, ensure_ascii=False)
  # "</script>" inside a string would end the element that holds the data.
  return _TEMPLATE.read_text().replace("DATA", data.replace("<", "\\u003c"), 1)


def _question(result, at, settings, model, processor, options) -> Mapping[str, Any]:
  row, entry = result.table.rows[at], result.answers[at]
  pictures, videos = result.table.pictures(row), result.table.videos(row, options.fps, options.max_frames)
  views, images = [], pictures
  if pictures or videos:
    views = model.views(**processor(images=[pictures], videos=[videos], prompts=[""], min_pixels=options.min_pixels,
                                    max_pixels=options.max_pixels))
  if videos:
    step = -(-len(videos[0].frames) // len(views))  # frames of a temporal slice; its first stands for it
    images = [Image.fromarray(frame) for frame in videos[0].frames[::step]]
  # Many pictures stand in a grid of about the size of one.
  side = min(_LARGEST, 2 * _LARGEST // math.ceil(math.sqrt(max(1, len(images)))))
  answers = [{
      "name": setting.name, "selector": setting.selector or "all tokens", "share": setting.keep_ratio or 1.0,
      "prediction": answer["prediction"], "right": bool(scores[at] > 0.5), "kept": answer["kept"],
      "tokens": answer.get("tokens"),
  } for setting, answer, scores in zip(settings, entry["answers"], result.scores)]
  return {"file": result.table.name, "index": row.index, "question": row.fields["question"], "answer": row.fields["answer"],
          "tokens": entry["tokens"], "pictures": [_embedded(image, side) for image in images], "answers": answers,
          "views": [[view.picture, view.rows, view.columns, int(view.newlines)] for view in views]}


def _embedded(picture: Image.Image, side: int) -> str:
  picture = picture.copy()
  picture.thumbnail((side, side))
  buffer = io.BytesIO()
  picture.save(buffer, "JPEG", quality=85)
  return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
