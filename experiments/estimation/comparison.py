"""Accuracies with intervals, and paired tests, from what `experiments.compare` recorded.

Axes: Q questions, H heads.
"""

from __future__ import annotations

import csv as csv_lib
import io
from typing import Any

import numpy as np
from scipy import stats

from experiments.reporting import tables

RESAMPLES = 2000
# Rows that every other row is compared with.
REFERENCES = ("uniform", "random")


def analyse(hits: dict[str, np.ndarray], kept_share: dict[str, float]) -> list[dict[str, Any]]:
  """One entry per setting.

  Args:
    hits: by `row@kept`, [Q] bool: which of the same Q questions were answered right.
    kept_share: by the same names, mean share of the visual tokens that were really kept.

  Returns:
    For each setting: row, kept, mean_kept, accuracy, low and high (95 % bootstrap interval over questions); and under the
    name of each reference that was measured at the same share: the difference to it, its interval, and the p-value of
    McNemar's exact test.
  """
  questions = len(next(iter(hits.values())))
  weights = np.random.default_rng(0).multinomial(questions, np.full(questions, 1 / questions), RESAMPLES) / questions
  interval = lambda values: [float(x) for x in np.quantile(weights @ values, [0.025, 0.975])]
  table = []
  for name, found in hits.items():
    row, kept = name.rsplit("@", 1)
    low, high = interval(found.astype(float))
    entry = {
      "row": row,
      "kept": float(kept),
      "mean_kept": kept_share[name],
      "accuracy": float(found.mean()),
      "low": low,
      "high": high,
    }
    for reference in REFERENCES:
      other = hits.get(f"{reference}@{kept}")
      if other is not None and reference != row:
        gained, lost = int((found & ~other).sum()), int((other & ~found).sum())
        low, high = interval(found.astype(float) - other)
        p = stats.binomtest(gained, gained + lost).pvalue if gained + lost else 1.0
        entry[reference] = {"difference": float(found.mean() - other.mean()), "low": low, "high": high, "p": float(p)}
    table.append(entry)
  return table


def markdown(table: list[dict[str, Any]], title: str) -> str:
  """Accuracy by row and share; then the paired differences to each reference."""
  shares = sorted({entry["kept"] for entry in table}, reverse=True)
  rows = list(dict.fromkeys(entry["row"] for entry in table))
  at = {(entry["row"], entry["kept"]): entry for entry in table}
  columns = lambda shares: ["", *(f"{100 * share:g} % kept" for share in shares)]
  lines = [title, ""]
  lines += tables.table(columns(shares), [[row, *(_accuracy(at.get((row, share))) for share in shares)] for row in rows])
  pruned = [share for share in shares if share < 1]
  for reference in REFERENCES:
    lines += [
      "",
      f"Difference to `{reference}` on the same questions, in points, with 95 % interval and McNemar's exact p:",
      "",
    ]
    cells = {row: [_difference(at.get((row, share), {}).get(reference)) for share in pruned] for row in rows}
    lines += tables.table(columns(pruned), [[row, *found] for row, found in cells.items() if any(found)])
  return "\n".join(lines) + "\n"


def _accuracy(entry) -> str:
  if entry is None:
    return ""
  accuracy, low, high = (f"{100 * entry[name]:.1f}" for name in ("accuracy", "low", "high"))
  return f"{accuracy} ({low} to {high})"


def _difference(entry) -> str:
  if entry is None:
    return ""
  difference, low, high = (f"{100 * entry[name]:+.1f}" for name in ("difference", "low", "high"))
  return f"{difference} ({low} to {high}), p {entry['p']:.1g}"


def csv(table: list[dict[str, Any]]) -> str:
  """A header, and one line per setting."""
  columns = ["row", "kept", "mean_kept", "accuracy", "low", "high"]
  columns += [f"{reference}_{part}" for reference in REFERENCES for part in ("difference", "low", "high", "p")]
  out = io.StringIO()
  writer = csv_lib.DictWriter(out, columns, lineterminator="\n")
  writer.writeheader()
  for entry in table:
    flat = {name: value for name, value in entry.items() if name not in REFERENCES}
    flat |= {f"{reference}_{part}": value for reference in REFERENCES for part, value in entry.get(reference, {}).items()}
    writer.writerow(flat)
  return out.getvalue()


def curves(table: list[dict[str, Any]]) -> tuple[list[float], dict[str, list[float]]]:
  """Shares, ascending, and by row its accuracies in percent; only rows that were measured at all shares."""
  rows = {}
  for entry in table:
    rows.setdefault(entry["row"], {})[entry["kept"]] = 100 * entry["accuracy"]
  whole = rows.pop("all tokens", {})
  rows = {name: {**values, **whole} for name, values in rows.items() if not name.startswith("head ")}
  shares = sorted({share for values in rows.values() for share in values})
  return shares, {name: [values[share] for share in shares] for name, values in rows.items() if len(values) == len(shares)}


def heads(table: list[dict[str, Any]], count: int) -> dict[str, np.ndarray]:
  """[H] accuracy of each head alone, by a label with the share and the accuracy of uniform head weights."""
  at = {(entry["row"], entry["kept"]): entry["accuracy"] for entry in table}
  shares = sorted({kept for row, kept in at if row == "head 0"}, reverse=True)
  return {
    f"{100 * share:g} % kept (uniform weights {100 * at['uniform', share]:.0f} %)": np.asarray(
      [at[f"head {head}", share] for head in range(count)]
    )
    for share in shares
  }
