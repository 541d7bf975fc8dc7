"""Accuracies with intervals, and paired tests, from what `experiments.compare` recorded.

Axes: Q questions, H heads.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from experiments.reporting import figures
from experiments.reporting import intervals
from experiments.reporting import tables

# Rows that every other row is compared with.
REFERENCES = ("uniform", "random")
# HAWK with the paper's importance, which figures show if it is there.
_PAPER = "ablation"
_FEW = 6  # curves of the panel of the best rows, which lie close together
# The row of the unpruned model, and how rows of a single head begin, which no method could choose.
WHOLE, SINGLE = "all tokens", "head "


def hits_of(records: Sequence[dict[str, Any]], names: Sequence[str]) -> dict[str, np.ndarray]:
  """By the name of a variant, [Q] bool: which questions were answered right, from the journal of `experiments.compare`."""
  return {name: np.asarray([bit == "1" for record in records for bit in record["right"][name]]) for name in names}


def analyse(
  hits: dict[str, np.ndarray], kept_share: dict[str, float], references: Sequence[str] = REFERENCES
) -> list[dict[str, Any]]:
  """One entry per setting.

  Args:
    hits: by `row@kept`, [Q] bool: which of the same Q questions were answered right.
    kept_share: by the same names, mean share of the visual tokens that were really kept.
    references: rows that every other row is compared with.

  Returns:
    For each setting: row, kept, mean_kept, accuracy, low and high (95 % bootstrap interval over questions); and under the
    name of each reference that was measured at the same share: the difference to it, its interval, and the p-value of
    McNemar's exact test. Under `front`, whether no other row is as accurate with fewer tokens, or more accurate with as few;
    rows of single heads do not count.
  """
  questions = len(next(iter(hits.values())))
  interval = intervals.bootstrap(questions)
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
    for reference in references:
      other = hits.get(f"{reference}@{kept}")
      if other is not None and reference != row:
        entry[reference] = intervals.paired(found, other, interval)
    table.append(entry)
  return _with_front(table)


def _with_front(table, cost="mean_kept"):
  real = [entry for entry in table if not entry["row"].startswith(SINGLE)]
  for entry in table:
    entry["front"] = entry in real and not any(_dominates(other, entry, cost) for other in real)
  return table


def _dominates(one: dict[str, Any], other: dict[str, Any], cost: str) -> bool:
  as_good = one["accuracy"] >= other["accuracy"] and one[cost] <= other[cost]
  return as_good and (one["accuracy"] > other["accuracy"] or one[cost] < other[cost])


def timed(table: Sequence[dict[str, Any]], milliseconds: Mapping[str, float]) -> list[dict[str, Any]]:
  """Accuracy against time.

  Args:
    table: of `analyse`.
    milliseconds: of one question, by `row@kept`.

  Returns:
    For each setting: row, kept, milliseconds, accuracy, low and high as in `analyse`, and under `front` whether no other row
    is as accurate in less time, or more accurate in as much.
  """
  copied = ("row", "kept", "accuracy", "low", "high")
  return _with_front(
    [
      {name: entry[name] for name in copied} | {"milliseconds": milliseconds[f"{entry['row']}@{entry['kept']:g}"]}
      for entry in table
    ],
    "milliseconds",
  )


def timed_markdown(entries: Sequence[dict[str, Any]], title: str) -> str:
  """The front of `timed`, and the time of every row and share.

  Args:
    entries: of `timed`.
    title: of the text.
  """
  front = sorted((entry for entry in entries if entry["front"]), key=lambda entry: -entry["milliseconds"])
  lines = [title, "", "The front: no other row is as accurate in less time, or more accurate in as much.", ""]
  lines += tables.table(
    ["milliseconds", "row", "kept", "right answers"],
    [[f"{entry['milliseconds']:.2f}", entry["row"], f"{100 * entry['kept']:g} %", _accuracy(entry)] for entry in front],
    left=2,
  )
  shares = sorted({entry["kept"] for entry in entries}, reverse=True)
  times: dict[str, dict[float, float]] = {}
  for entry in entries:
    times.setdefault(entry["row"], {})[entry["kept"]] = entry["milliseconds"]
  cell = lambda found, share: f"{found[share]:.2f}" if share in found else ""
  lines += ["", "Milliseconds by row and share:", ""]
  lines += tables.table(
    ["", *(f"{100 * share:g} % kept" for share in shares)],
    [[row, *(cell(found, share) for share in shares)] for row, found in times.items()],
  )
  return "\n".join(lines) + "\n"


def timed_csv(entries: Sequence[dict[str, Any]]) -> str:
  """A header, and one line per setting, of `timed`."""
  columns = ["row", "kept", "milliseconds", "accuracy", "low", "high", "front"]
  return tables.csv(columns, ([*(entry[name] for name in columns[:-1]), int(entry["front"])] for entry in entries))


def best(hits: dict[str, np.ndarray], references: Sequence[str] = REFERENCES) -> list[dict[str, Any]]:
  """The best row at each share: chosen on every second question, and measured on the others.

  Rows of single heads do not count. A row that is chosen and measured on the same questions looks better than it is. The
  halves are not drawn at random: the kinds of the embedded task take turns with an odd period, so that both halves hold all
  kinds equally often. Questions of a file must not alternate with an even period.

  Args:
    hits: as in `analyse`.
    references: as in `analyse`.

  Returns:
    The entry of `analyse` on the other questions of the best row at each share below 1, in descending order of the shares.
  """
  halves = [{name: found[start::2] for name, found in hits.items()} for start in (0, 1)]
  table = analyse(halves[1], dict.fromkeys(hits, float("nan")), references)
  return _of_winners(table, {name: float(found.mean()) for name, found in halves[0].items()})


def best_over_models(
  hits: Mapping[str, Mapping[str, np.ndarray]], references: Sequence[str] = REFERENCES
) -> list[dict[str, Any]]:
  """`best` by the mean over models: the row is the same for all models.

  Args:
    hits: as in `over_models`.
    references: as in `analyse`.

  Returns:
    The entry of `over_models` on the other questions of the best row at each share below 1.
  """
  halves = [
    {model: {name: found[start::2] for name, found in own.items()} for model, own in hits.items()} for start in (0, 1)
  ]
  names = _everywhere(hits)
  return _of_winners(
    over_models(halves[1], references), {name: float(np.mean([own[name] for own in halves[0].values()])) for name in names}
  )


def _of_winners(table, accuracies):
  """The entries of the rows that have the highest accuracy at each share below 1; those of single heads do not count."""
  chosen: dict[float, list[tuple[float, str]]] = {}
  for name, accuracy in accuracies.items():
    row, kept = name.rsplit("@", 1)
    if float(kept) < 1 and not row.startswith(SINGLE):
      chosen.setdefault(float(kept), []).append((accuracy, row))
  winners = {kept: max(rows, key=lambda entry: entry[0])[1] for kept, rows in chosen.items()}
  at = {(entry["row"], entry["kept"]): entry for entry in table}
  return [at[winners[kept], kept] for kept in sorted(winners, reverse=True)]


def _everywhere(hits):
  """The names that every model has, without single heads: head 3 of one model has nothing in common with that of another."""
  names = [name for name in next(iter(hits.values())) if not name.startswith(SINGLE)]
  return [name for name in names if all(name in own for own in hits.values())]


def markdown(
  table: list[dict[str, Any]],
  title: str,
  references: Sequence[str] = REFERENCES,
  winners: Sequence[dict[str, Any]] = (),
  test: str = intervals.MCNEMAR,
) -> str:
  """Accuracy by row and share; the paired differences to each reference; and what `best` found.

  Args:
    table: of `analyse` or `over_models`.
    title: of the text.
    references: as in `analyse`; those that were not measured have no section.
    winners: of `best` or `best_over_models`.
    test: whose p-value each difference has.
  """
  references = _measured(table, references)
  shares = sorted({entry["kept"] for entry in table}, reverse=True)
  rows = list(dict.fromkeys(entry["row"] for entry in table))
  at = {(entry["row"], entry["kept"]): entry for entry in table}
  columns = lambda shares: ["", *(f"{100 * share:g} % kept" for share in shares)]
  lines = [title, ""]
  lines += tables.table(columns(shares), [[row, *(_accuracy(at.get((row, share))) for share in shares)] for row in rows])
  pruned = [share for share in shares if share < 1]
  for reference in references:
    lines += [
      "",
      f"Difference to `{reference}` on the same questions, in points, with 95 % interval and {test}:",
      "",
    ]
    cells = {row: [intervals.describe(at.get((row, share), {}).get(reference)) for share in pruned] for row in rows}
    lines += tables.table(columns(pruned), [[row, *found] for row, found in cells.items() if any(found)])
  lines += ["", "The front: no other row is as accurate with fewer tokens, or more accurate with as few.", ""]
  front = sorted((entry for entry in table if entry["front"]), key=lambda entry: -entry["mean_kept"])
  lines += tables.table(
    ["tokens kept", "row", "right answers"],
    [[f"{100 * entry['mean_kept']:.1f} %", entry["row"], _accuracy(entry)] for entry in front],
    left=2,
  )
  if winners:
    lines += ["", "The best row at each share, chosen on every second question and measured on the others:", ""]
    lines += tables.table(
      ["kept", "row", "right answers", *(f"difference to `{reference}`" for reference in references)],
      [
        [f"{100 * entry['kept']:g} %", entry["row"], _accuracy(entry)]
        + [intervals.describe(entry.get(reference)) for reference in references]
        for entry in winners
      ],
      left=2,
    )
  return "\n".join(lines) + "\n"


def _measured(table: Sequence[dict[str, Any]], references: Sequence[str]) -> list[str]:
  """The references that some row was compared with."""
  return [reference for reference in references if any(reference in entry for entry in table)]


def _accuracy(entry) -> str:
  if entry is None:
    return ""
  accuracy, low, high = (f"{100 * entry[name]:.1f}" for name in ("accuracy", "low", "high"))
  return f"{accuracy} ({low} to {high})"


def csv(table: list[dict[str, Any]], references: Sequence[str] = REFERENCES) -> str:
  """A header, and one line per setting; references that were not measured have no columns."""
  references = _measured(table, references)
  columns = ["row", "kept", "mean_kept", "accuracy", "low", "high", "front"]
  columns += [f"{reference}_{part}" for reference in references for part in ("difference", "low", "high", "p")]
  rows = []
  for entry in table:
    flat = {name: int(value) if name == "front" else value for name, value in entry.items() if name not in references}
    flat |= {f"{reference}_{part}": value for reference in references for part, value in entry.get(reference, {}).items()}
    rows.append([flat.get(name, "") for name in columns])
  return tables.csv(columns, rows)


def series(table: list[dict[str, Any]]) -> dict[str, list[tuple[float, float, float, float]]]:
  """By row, (share kept, accuracy, low, high) in percent, by ascending share; only rows that were measured at all shares.

  Rows of single heads are left out, and the unpruned model is the last point of every row.
  """
  rows: dict[str, dict[float, tuple[float, float, float, float]]] = {}
  for entry in table:
    if not entry["row"].startswith(SINGLE):
      point = tuple(100 * entry[name] for name in ("kept", "accuracy", "low", "high"))
      rows.setdefault(entry["row"], {})[entry["kept"]] = point
  whole = rows.pop(WHOLE, {})
  rows = {name: values | whole for name, values in rows.items()}
  most = max(map(len, rows.values()), default=0)
  return {name: [values[share] for share in sorted(values)] for name, values in rows.items() if len(values) == most}


def heads(table: list[dict[str, Any]], count: int) -> dict[str, np.ndarray]:
  """[H] accuracy of each head alone, by a label with the share and the accuracy of uniform head weights."""
  at = {(entry["row"], entry["kept"]): entry["accuracy"] for entry in table}
  shares = sorted({kept for row, kept in at if row == f"{SINGLE}0"}, reverse=True)
  return {
    f"{100 * share:g} % kept (uniform weights {100 * at['uniform', share]:.0f} %)": np.asarray(
      [at[f"{SINGLE}{head}", share] for head in range(count)]
    )
    for share in shares
  }


def by_dataset(hits: dict[str, np.ndarray], datasets: Sequence[str]) -> dict[str, dict[str, float]]:
  """Accuracy by `row@kept` and data set.

  Args:
    hits: as in `analyse`.
    datasets: [Q] data set of each question.
  """
  labels = np.asarray(datasets)
  return {
    name: {str(dataset): float(found[labels == dataset].mean()) for dataset in dict.fromkeys(datasets)}
    for name, found in hits.items()
  }


def datasets_csv(found: dict[str, dict[str, float]]) -> str:
  """A header, and one line per setting, of `by_dataset`."""
  columns = ["row", "kept", *next(iter(found.values()))]
  return tables.csv(columns, ([*name.rsplit("@", 1), *accuracies.values()] for name, accuracies in found.items()))


def transfer(found: dict[str, dict[str, float]], rows: Sequence[str], shares: Sequence[float]) -> str:
  """transfer.md: what weights from one calibration set are worth on each test set.

  Args:
    found: of `by_dataset`.
    rows: with the weights, and those to compare with.
    shares: of tokens kept.
  """
  lines = []
  for share in shares:
    lines += [f"Right answers in % with {100 * share:g} % of the visual tokens kept, by the questions asked:", ""]
    cells = {row: found[f"{row}@{share:g}"] for row in rows}
    lines += tables.table(
      ["weights from", *next(iter(cells.values()))],
      [[row, *(f"{100 * accuracy:.1f}" for accuracy in each.values())] for row, each in cells.items()],
    )
    lines.append("")
  return "\n".join(lines)


def panels(table: list[dict[str, Any]], importances: Sequence[str], selectors: Sequence[str]) -> list[figures.Panel]:
  """HAWK's rule under each importance, each rule with uniform head weights, and the best of all rows, by mean accuracy.

  Args:
    table: of `analyse` or `over_models`.
    importances: rows of HAWK's rule.
    selectors: the other rules.
  """
  rows = series(table)
  whole = next(100 * entry["accuracy"] for entry in table if entry["row"] == WHOLE)
  groups = (
    ("HAWK's rule, by importance", [row for row in rows if row in importances], figures.MOST),
    ("Uniform head weights, by rule", [row for row in rows if row in (REFERENCES[0], *selectors)], figures.MOST),
    ("The best of all rows", list(rows), _FEW),
  )
  return [
    figures.Panel(title, figures.best({row: rows[row] for row in group}, most, (*REFERENCES, _PAPER)), whole)
    for title, group, most in groups
    if group
  ]


def over_models(
  hits: Mapping[str, Mapping[str, np.ndarray]], references: Sequence[str] = REFERENCES
) -> list[dict[str, Any]]:
  """Means over models, with 95 % t intervals over models and questions; see `intervals.crossed`.

  A row is in the table if it was measured on all models, unless it is that of a single head.

  Args:
    hits: by the name of two or more models, as in `analyse`, of the same questions.
    references: as in `analyse`.

  Returns:
    Entries as those of `analyse`. Differences are paired by model and question, and p is that of Clark's min F'; mean_kept
    is the share that was to be kept.
  """
  every = {name: np.stack([own[name] for own in hits.values()]).astype(float) for name in _everywhere(hits)}
  table: list[dict[str, Any]] = []
  for name, values in every.items():
    row, kept = name.rsplit("@", 1)
    found = intervals.crossed(values)
    entry: dict[str, Any] = {"row": row, "kept": float(kept), "mean_kept": float(kept), "accuracy": found["difference"]}
    entry |= {"low": max(found["low"], 0.0), "high": min(found["high"], 1.0)}
    for reference in references:
      other = every.get(f"{reference}@{kept}")
      if other is not None and reference != row:
        entry[reference] = intervals.crossed(values - other)
    table.append(entry)
  return _with_front(table)
