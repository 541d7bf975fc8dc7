"""The settings that `experiments.compare` measures: head importances crossed with rules, merging and shares."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import dataclasses

import numpy as np

from experiments.estimation import comparison
from experiments.estimation import sources
from experiments.estimation.outcomes import Variant
from hawk_jax import selectors
from hawk_jax.pruning import Pruning

BASELINE = "uniform"


@dataclasses.dataclass(frozen=True)
class Crossing:
  """What is crossed with what.

  Attributes:
    rows: head importance by the name of a row of HAWK; one of them is BASELINE.
    rules: selectors beside HAWK's own.
    merges: what becomes of tokens that are not kept.
    ratios: shares of tokens kept, descending.
    staged: schedules by name and mean share (`NAME@SHARE`), each measured with every importance.
    single_heads: whether every head is measured alone too, at the two smallest shares.
    make: a `Pruning` with given fields.
  """

  rows: Mapping[str, sources.Importance]
  rules: Sequence[str]
  merges: Sequence[str]
  ratios: Sequence[float]
  staged: Mapping[str, Pruning]
  single_heads: bool
  make: Callable[..., Pruning]

  def variants(self, budgets: Mapping[str, Mapping[float, Pruning]]) -> list[Variant]:
    """Every setting to measure, called `ROW@SHARE`.

    Args:
      budgets: adaptive budgets of some rows by share, of `adaptive.calibrate`.
    """
    found = [Variant(f"{comparison.WHOLE}@1")]
    shares = {float(name.rsplit("@", 1)[1]) for name in self.staged} - {1.0}
    for ratio in sorted({*self.ratios} | shares, reverse=True):
      found += self._crossed("hawk", ratio)
      if ratio in self.ratios:
        found += [
          Variant(f"{adaptive_row(name)}@{ratio:g}", self.rows[name].weights, own[ratio]) for name, own in budgets.items()
        ]
      for rule in self.rules:
        found += self._crossed(rule, ratio) if rule != "hawk" else []
      if self.single_heads and ratio in self.ratios[-2:]:
        heads = np.eye(len(self.rows[BASELINE].weights), dtype=np.float32)
        pruning = self.make(keep_ratio=ratio)
        found += [Variant(f"{comparison.SINGLE}{head}@{ratio:g}", weights, pruning) for head, weights in enumerate(heads)]
    for name, pruning in self.staged.items():
      text, share = name.rsplit("@", 1)
      for row, each in self.rows.items():
        full = text if row == BASELINE else f"{text}, {row}"
        weighted = dataclasses.replace(pruning, head_weights=each.head_weights)
        found.append(Variant(f"{full}@{share}", each.weights, weighted))
    return found

  def _crossed(self, selector, ratio):
    """A rule with every importance that it reads and every merge, at one share."""
    rule, found = selectors.SELECTORS[selector], []
    for name in self.rows if rule.weighted else ("",):
      each = self.rows[name or BASELINE]
      own = [name] if selector == "hawk" else [selector] + [name] * (name not in ("", BASELINE))
      for merge in self.merges if rule.merge is None else ("none",):
        pruning = self.make(selector=selector, merge=merge, head_weights=each.head_weights, keep_ratio=ratio)
        row = ", ".join(own + ["merged"] * (merge != "none"))
        found.append(Variant(f"{row}@{ratio:g}", each.weights, pruning))
    return found


def adaptive_row(row: str) -> str:
  """The name of a row with an adaptive budget."""
  return f"{row}, adaptive"
