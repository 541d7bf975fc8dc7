"""What an evaluation will compute, decided before it starts: settings to compare, and batches of like-sized questions.

Batches follow from the settings and the files alone. A run that was killed, or shared among processes, computes the very
batches of an undisturbed one, so its answers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses

from experiments.benchmarks.tsv import Table
from models.buckets import bucket

_PIXELS_A_TOKEN = 28 * 28
RESOLUTIONS = {
    "model": (None, None),
    "native": (1280 * _PIXELS_A_TOKEN, 16_384 * _PIXELS_A_TOKEN),
    "fixed1008": (1008 * 1008, 1008 * 1008),
}


@dataclasses.dataclass(frozen=True)
class Setting:
  """One way to prune; without a selector, nothing is pruned."""

  selector: str | None = None
  keep_ratio: float | None = None

  @property
  def name(self) -> str:
    return "all tokens" if self.selector is None else f"{self.selector} {self.keep_ratio:g}"


@dataclasses.dataclass(frozen=True)
class Batch:
  """Questions of one file that go through the model together.

  Attributes:
    number: of the batch in the whole evaluation.
    table: of the file.
    rows: positions in its `rows`.
  """

  number: int
  table: int
  rows: tuple[int, ...]


def settings(selectors: Sequence[str], keep_ratios: Sequence[float]) -> tuple[Setting, ...]:
  """All tokens first, then every selector at every ratio.

  Raises:
    ValueError: a ratio outside (0, 1), or anything twice.
  """
  for name, values in (("selector", selectors), ("keep_ratio", keep_ratios)):
    if len(set(values)) != len(values):
      raise ValueError(f"{name}: got {', '.join(map(str, values))}, must not name one twice")
  for ratio in keep_ratios:
    if not 0.0 < ratio < 1.0:
      raise ValueError(f"keep_ratio: got {ratio}, must be between 0 and 1; all tokens are always evaluated too")
  return (Setting(), *(Setting(selector, ratio) for ratio in sorted(keep_ratios, reverse=True) for selector in selectors))


def batches(tables: Sequence[Table], size: int, min_pixels: int | None, max_pixels: int | None) -> list[Batch]:
  """Groups every file's questions by the pixels of their pictures and the length of their text.

  Args:
    tables: the files.
    size: most questions a batch.
    min_pixels: that smaller pictures are scaled up to.
    max_pixels: that larger ones are scaled down to.

  Returns:
    Batches of all rows that have no problem; the last of a file may be smaller.
  """
  result = []
  for number, table in enumerate(tables):

    def cost(at, rows=table.rows):
      pixels = [max(min(width * height, max_pixels or width * height), min_pixels or 0) for width, height in rows[at].sizes]
      return bucket(sum(pixels) // _PIXELS_A_TOKEN), len(pixels), bucket(len(rows[at].fields["question"])), at

    order = sorted((at for at, row in enumerate(table.rows) if row.problem is None), key=cost)
    for start in range(0, len(order), size):
      result.append(Batch(len(result), number, tuple(order[start:start + size])))
  return result
