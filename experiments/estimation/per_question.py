"""per_question.npz: which questions each setting of a comparison answered right, for paired tests and means over models.

  held = np.load("per_question.npz")
  right = dict(zip(held["settings"], held["right"]))  # by ROW@SHARE, [Q] bool

Axes: N settings, Q questions, R rows of HAWK's rule, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import io
import pathlib
import zipfile

import numpy as np

from hawk_jax import checks

FILE = "per_question.npz"


@dataclasses.dataclass(frozen=True)
class PerQuestion:
  """What `experiments.compare` found out about a model.

  Attributes:
    questions: fingerprint of the questions and their order.
    flags: settings of the method that are not at their defaults, in words.
    measured: machine, date and packages.
    right: by `ROW@SHARE`, [Q] bool: which questions were answered right.
    weights: by the name of a row of HAWK's rule, [H] head importance; NaN where each question has weights of its own.
  """

  questions: str
  flags: str
  measured: str
  right: Mapping[str, np.ndarray]
  weights: Mapping[str, np.ndarray]


def encode(found: PerQuestion) -> bytes:
  """The content of the file: `settings` [N], `right` [N, Q], `rows` [R], `weights` [R, H], and the texts."""
  content = io.BytesIO()
  np.savez_compressed(
    content,
    settings=[*found.right],
    right=np.stack([*found.right.values()]),
    rows=[*found.weights],
    weights=np.stack([*found.weights.values()]),
    questions=found.questions,
    flags=found.flags,
    measured=found.measured,
  )
  return content.getvalue()


def load(path: pathlib.Path) -> PerQuestion:
  """Reads a file.

  Raises:
    OSError: it cannot be read.
    ValueError: it is not one of these files.
  """
  checks.regular_file(path)
  try:
    with np.load(path) as held:
      settings, right, rows, weights = (held[name] for name in ("settings", "right", "rows", "weights"))
      texts = {name: str(held[name]) for name in ("questions", "flags", "measured")}
      by_setting = dict(zip(settings.tolist(), right.astype(bool), strict=True))
      by_row = dict(zip(rows.tolist(), weights.astype(np.float32), strict=True))
  except (ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile) as error:
    raise ValueError(f"{path}: not a file of right answers per question, as experiments.compare writes it") from error
  return PerQuestion(right=by_setting, weights=by_row, **texts)
