"""What an evaluation computes, decided before it starts: the settings to compare, and batches of questions of similar size.

Batches depend on the command's settings and the files alone. A run that was interrupted, or shared among processes, computes
exactly the batches of an undisturbed one, so its answers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
from typing import Any

from experiments.evaluation.benchmarks.tsv import Table
from hawk_jax.buckets import bucket
from hawk_jax.pruning import Pruning

_PIXELS_PER_TOKEN = 28 * 28
# Smallest and largest number of pixels of a picture.
RESOLUTIONS = {
  "model": (None, None),
  "native": (1280 * _PIXELS_PER_TOKEN, 16_384 * _PIXELS_PER_TOKEN),
  "fixed1008": (1008 * 1008, 1008 * 1008),
}


@dataclasses.dataclass(frozen=True)
class Batch:
  """Questions of one file that go through the model together.

  Attributes:
    number: of the batch in the whole evaluation.
    table: number of the file.
    rows: positions of the questions in the table's `rows`.
  """

  number: int
  table: int
  rows: tuple[int, ...]


def settings(selectors: Sequence[str], keep_ratios: Sequence[float], **shared: Any) -> tuple[Pruning, ...]:
  """The settings to compare: all tokens first, then every selector at every ratio.

  Args:
    selectors: names of `hawk_jax.selectors.SELECTORS`.
    keep_ratios: shares of the visual tokens to keep.
    **shared: other fields of `hawk_jax.Pruning`, the same in all settings.

  Raises:
    ValueError: a ratio outside (0, 1), or a selector or ratio that is given twice.
  """
  for argument, values in (("selector", selectors), ("keep_ratio", keep_ratios)):
    if len(set(values)) != len(values):
      raise ValueError(f"{argument}: got {', '.join(map(str, values))}, must not name one twice")
  for ratio in keep_ratios:
    if not 0.0 < ratio < 1.0:
      raise ValueError(f"keep_ratio: got {ratio}, must be between 0 and 1; all tokens are always evaluated too")
  return (
    Pruning(**shared),
    *(
      Pruning(keep_ratio=ratio, selector=selector, **shared)
      for ratio in sorted(keep_ratios, reverse=True)
      for selector in selectors
    ),
  )


def name(setting: Pruning) -> str:
  """A setting's name in files and reports."""
  return "all tokens" if setting.keep_ratio is None else f"{setting.selector} {setting.keep_ratio:g}"


def batches(tables: Sequence[Table], size: int, min_pixels: int | None, max_pixels: int | None) -> list[Batch]:
  """Groups every file's questions by the pixels of their pictures and the length of their text.

  Args:
    tables: the files.
    size: number of questions per batch.
    min_pixels: smaller pictures are scaled up to this many pixels.
    max_pixels: larger pictures are scaled down to this many pixels.

  Returns:
    Batches of all rows that have no problem; the last batch of a file may be smaller.
  """
  result = []
  for number, table in enumerate(tables):

    def cost(at, rows=table.rows):
      pixels = [max(min(width * height, max_pixels or width * height), min_pixels or 0) for width, height in rows[at].sizes]
      return bucket(sum(pixels) // _PIXELS_PER_TOKEN), len(pixels), bucket(len(rows[at].fields["question"])), at

    order = sorted((at for at, row in enumerate(table.rows) if row.problem is None), key=cost)
    for start in range(0, len(order), size):
      result.append(Batch(len(result), number, tuple(order[start : start + size])))
  return result
