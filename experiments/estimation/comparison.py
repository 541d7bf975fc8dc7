"""Accuracies with intervals, and paired tests, of what `experiments.compare` recorded."""

from __future__ import annotations

import csv as csv_lib
import io
from typing import Any

import numpy as np
from scipy import stats

RESAMPLES = 2000
REFERENCES = ("uniform", "random")


def analyse(hits: dict[str, np.ndarray], kept_share: dict[str, float]) -> list[dict[str, Any]]:
  """A row for every setting.

  Args:
    hits: by `row@kept`, [Q] bool: which of the same Q questions were answered right.
    kept_share: by the same, mean share of the visual tokens that were really kept.

  Returns:
    For each: row, kept, mean_kept, accuracy, low and high (95 % bootstrap interval over questions); and against `uniform`
    and `random` at the same share: the difference, its interval, and the p-value of McNemar's exact test.
  """
  questions = len(next(iter(hits.values())))
  weights = np.random.default_rng(0).multinomial(questions, np.full(questions, 1 / questions), RESAMPLES) / questions
  interval = lambda values: [float(x) for x in np.quantile(weights @ values, [0.025, 0.975])]
  table = []
  for name, found in hits.items():
    row, kept = name.rsplit("@", 1)
    low, high = interval(found.astype(float))
    entry = {"row": row, "kept": float(kept), "mean_kept": kept_share[name], "accuracy": float(found.mean()), "low": low,
             "high": high}
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
  """Accuracy by row and share; then the paired differences to `uniform`."""
  shares = sorted({entry["kept"] for entry in table}, reverse=True)
  rows = list(dict.fromkeys(entry["row"] for entry in table))
  at = {(entry["row"], entry["kept"]): entry for entry in table}
  percent = lambda value: f"{100 * value:.1f}"
  lines = [title, "", "| | " + " | ".join(f"{100 * share:g} % kept" for share in shares) + " |",
           "|---|" + "---:|" * len(shares)]
  for row in rows:
    cells = [f"{percent(e['accuracy'])} ({percent(e['low'])} to {percent(e['high'])})" if (e := at.get((row, share))) else ""
             for share in shares]
    lines.append(f"| {row} | " + " | ".join(cells) + " |")
  for reference in REFERENCES:
    lines += ["", f"Difference to `{reference}` on the same questions, in points, with 95 % interval and McNemar's exact p:",
              "", "| | " + " | ".join(f"{100 * share:g} % kept" for share in shares if share < 1) + " |",
              "|---|" + "---:|" * sum(share < 1 for share in shares)]
    for row in rows:
      cells = []
      for share in shares:
        if share < 1:
          cells.append(_difference(at.get((row, share), {}).get(reference)))
      if any(cells):
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


def _difference(entry) -> str:
  if entry is None:
    return ""
  difference, low, high = (f"{100 * entry[name]:+.1f}" for name in ("difference", "low", "high"))
  return f"{difference} ({low} to {high}), p {entry['p']:.1g}"


def csv(table: list[dict[str, Any]]) -> str:
  """One line a setting."""
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
  """Shares, ascending, and accuracies in percent of every row that was measured at all of them."""
  rows = {}
  for entry in table:
    rows.setdefault(entry["row"], {})[entry["kept"]] = 100 * entry["accuracy"]
  whole = rows.pop("all tokens", {})
  rows = {name: {**values, **whole} for name, values in rows.items() if not name.startswith("head ")}
  shares = sorted({share for values in rows.values() for share in values})
  return shares, {name: [values[share] for share in shares] for name, values in rows.items() if len(values) == len(shares)}


def heads(table: list[dict[str, Any]], count: int) -> dict[str, np.ndarray]:
  """Each head's accuracy by itself, by share; beside it all heads equally."""
  at = {(entry["row"], entry["kept"]): entry["accuracy"] for entry in table}
  shares = sorted({kept for row, kept in at if row == "head 0"}, reverse=True)
  return {f"{100 * share:g} % kept (equal heads {100 * at['uniform', share]:.0f} %)":
          np.asarray([at[f"head {head}", share] for head in range(count)]) for share in shares}
