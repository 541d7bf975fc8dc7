"""What an evaluation computes, decided before it starts: the settings to compare, and batches of questions of similar size.

Batches depend on the command's settings and the files alone. A run that was interrupted, or shared among processes, computes
exactly the batches of an undisturbed one, so its answers are the same to the last bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

from experiments.evaluation.benchmarks.tsv import Table
from hawk_jax.buckets import bucket
from hawk_jax.pruning import Pruning
from hawk_jax.selectors import SELECTORS
from models import stages as stages_lib

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


@dataclasses.dataclass(frozen=True)
class Setting:
  """A row of the table.

  Attributes:
    pruning: which tokens are kept.
    importance: name of the head importance, "" for the one that all rows have.
    mean_share: share of the visual tokens in a decoder layer, mean over layers, of settings with stages; None: without.
  """

  pruning: Pruning
  importance: str = ""
  mean_share: float | None = None

  @property
  def keep_ratio(self) -> float | None:
    """Share of the visual tokens that is kept, with stages the mean over the decoder's layers; None: all."""
    return self.mean_share if self.pruning.stages else self.pruning.keep_ratio

  @property
  def selector(self) -> str:
    """What keeps the tokens: the rule, the head importance, and whether tokens are merged."""
    merged = "merged" if self.pruning.merge != "none" else ""
    return ", ".join(filter(None, (self.pruning.selector, self.importance, merged, self.pruning.stages)))


def settings(
  selectors: Sequence[str],
  keep_ratios: Sequence[float],
  *,
  importances: Mapping[str, str] | None = None,
  merges: Sequence[str] = ("none",),
  stages: Sequence[str] = (),
  make: Callable[..., Pruning] = Pruning,
  **shared: Any,
) -> tuple[Setting, ...]:
  """The settings to compare: all tokens first, then every selector at every ratio, and every selector with all stages.

  A selector that HAWK's score has an influence on is combined with every importance, and one that drops tokens with every
  merge.

  Args:
    selectors: names of `hawk_jax.selectors.SELECTORS`.
    keep_ratios: shares of the visual tokens to keep.
    importances: `Pruning.head_weights` of every head importance, by name; None: one, called "".
    merges: of `Pruning`.
    stages: of `Pruning`; selectors that remove tokens in the decoder are left out of them.
    make: makes a `Pruning` of its fields.
    **shared: other fields of `hawk_jax.Pruning`, the same in all settings.

  Raises:
    ValueError: a ratio outside (0, 1), or a selector, ratio or merge that is given twice.
  """
  importances = importances or {"": "importance"}
  for argument, values in (("selector", selectors), ("keep_ratio", keep_ratios), ("merge", merges), ("stages", stages)):
    if len(set(values)) != len(values):
      raise ValueError(f"{argument}: got {', '.join(map(str, values))}, must not name one twice")
  for ratio in keep_ratios:
    if not 0.0 < ratio < 1.0:
      raise ValueError(f"keep_ratio: got {ratio}, must be between 0 and 1; all tokens are always evaluated too")
  found = [Setting(make(**shared))]
  budgets: list[dict[str, Any]] = [dict(keep_ratio=ratio) for ratio in sorted(keep_ratios, reverse=True)]
  for budget in [*budgets, *(dict(stages=text) for text in stages)]:
    for selector in selectors:
      rule = SELECTORS[selector]
      if "stages" in budget and rule.stage != "input":
        continue
      for importance, head_weights in importances.items() if rule.weighted else [("", "importance")]:
        for merge in merges if rule.merge is None else ["none"]:
          pruning = make(**budget, selector=selector, merge=merge, head_weights=head_weights, **shared)
          found.append(Setting(pruning, importance, pruning.schedule.entering if pruning.stages else None))
  return tuple(found)


def resolve(setting: Setting, model) -> Setting:
  """The setting with the layers that its stages have in a model, and its mean share there.

  Raises:
    ValueError: stages that the model does not have.
  """
  stages_lib.check(setting.pruning, model)
  if not setting.pruning.stages:
    return setting
  schedule = stages_lib.resolve(setting.pruning, model)
  share = round(schedule.mean_share(model.config.text.num_hidden_layers), 6)
  return dataclasses.replace(setting, pruning=dataclasses.replace(setting.pruning, stages=str(schedule)), mean_share=share)


def name(setting: Setting) -> str:
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
