"""Finished batches to files: predictions, scores, a table like the paper's, and the plot.

Only seconds.jsonl holds times, so that a run that was interrupted and resumed ends in exactly the same other files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import statistics
from typing import Any

import numpy as np

from experiments.evaluation import plan
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.tsv import Table
from experiments.evaluation.published import Published
from experiments.reporting import figures
from experiments.reporting import intervals
from experiments.reporting import tables


@dataclasses.dataclass(frozen=True)
class Result:
  """A file's answers and scores.

  Attributes:
    benchmark: of the file.
    table: its rows.
    answers: for each row its journal entry: `answers` in the order of the settings, or `problem`.
    scores: for each setting, every row's score.
    totals: for each setting, the benchmark's scores.
  """

  benchmark: Benchmark
  table: Table
  answers: Sequence[Mapping[str, Any]]
  scores: Sequence[Sequence[float]]
  totals: Sequence[Mapping[str, float]]

  @property
  def problems(self) -> list[str]:
    """Why rows could not be asked."""
    return [entry["problem"] for entry in self.answers if "problem" in entry]

  @property
  def headlines(self) -> list[float]:
    """For each setting, the score that is in the table."""
    return [total[self.benchmark.headline] for total in self.totals]


def collect(
  tables: Sequence[Table],
  benchmarks: Sequence[Benchmark],
  batches: Sequence[plan.Batch],
  entries: Mapping[int, Mapping[str, Any]],
  count: int,
) -> list[Result]:
  """Scores everything.

  Args:
    tables: the files.
    benchmarks: of the files.
    batches: of the plan.
    entries: of the journal, for all batches by number.
    count: of settings.

  Returns:
    One result per file. Rows that could not be asked count as wrong.
  """
  answers = [[{"problem": row.problem} for row in table.rows] for table in tables]
  for batch in batches:
    for at, entry in entries[batch.number]["rows"].items():
      answers[batch.table][int(at)] = entry
  results = []
  for table, benchmark, rows in zip(tables, benchmarks, answers):
    scores, totals = [], []
    for setting in range(count):
      said = ["" if "problem" in entry else entry["answers"][setting]["prediction"] for entry in rows]
      scores.append(
        [
          0.0 if "problem" in entry else benchmark.score(row, prediction)
          for row, entry, prediction in zip(table.rows, rows, said)
        ]
      )
      totals.append(benchmark.aggregate(table, said, scores[-1]))
    results.append(Result(benchmark, table, rows, scores, totals))
  return results


def predictions(results: Sequence[Result], settings: Sequence[plan.Setting]) -> str:
  """predictions.jsonl: one line per question."""
  lines = []
  for result in results:
    for number, (row, entry) in enumerate(zip(result.table.rows, result.answers)):
      line = {"data": result.table.path.name, "index": row.index, "answer": row.fields["answer"]}
      if "problem" in entry:
        line["problem"] = entry["problem"]
      else:
        line["visual_tokens"] = entry["tokens"]
        if "scores" in entry:
          line["fused_scores"] = dict(zip(("least", "mean", "largest"), entry["scores"]))
        line["settings"] = {
          plan.name(setting): {"prediction": answer["prediction"], "score": scores[number], "kept": answer["kept"]}
          for setting, answer, scores in zip(settings, entry["answers"], result.scores)
        }
      lines.append(json.dumps(line, ensure_ascii=False))
  return "".join(line + "\n" for line in lines)


def scores(results: Sequence[Result], settings: Sequence[plan.Setting]) -> str:
  """scores.json: every benchmark's scores under every setting."""
  content = {}
  for result in results:
    kept = [
      statistics.fmean(entry["answers"][number]["kept"] / entry["tokens"] for entry in result.answers if entry.get("tokens"))
      if any(entry.get("tokens") for entry in result.answers)
      else None
      for number in range(len(settings))
    ]
    content[result.table.name] = {
      "benchmark": result.benchmark.title,
      "headline": result.benchmark.headline,
      "questions": len(result.table.rows),
      "unreadable": len(result.problems),
      "without_picture": result.table.skipped,
      "settings": {
        plan.name(setting): {"kept_share": share, "scores": dict(total)}
        for setting, share, total in zip(settings, kept, result.totals)
      },
    }
  return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def markdown(results: Sequence[Result], settings: Sequence[plan.Setting], published: Sequence[Published]) -> str:
  """table.md: one row per setting and one column per benchmark; cells also show the share of the unpruned score.

  The last column is the mean share. Published rows, labelled as such, follow ours.
  """
  names = titles(results)
  lines = ["| visual tokens | method | " + " | ".join(names) + " | mean share |", "|---|---|" + "---:|" * (len(names) + 1)]
  headlines = [dict(zip(names, scores)) for scores in zip(*(result.headlines for result in results))]
  whole = {paper.pruned: paper for paper in published}.get(0.0)

  def line(kept, label, values, base, share):
    cells = [_cell(values.get(title), base.get(title)) for title in names]
    lines.append(f"| {kept} | {label} | " + " | ".join(cells) + f" | {'' if share is None else f'{share:.1f} %'} |")

  for number, setting in enumerate(settings):
    values, base = headlines[number], headlines[0]
    shares = [100 * values[title] / base[title] for title in names if base[title]]
    kept = "100 %" if setting.keep_ratio is None else f"{100 * setting.keep_ratio:g} %"
    label = "unpruned" if setting.keep_ratio is None else setting.selector
    line(kept, label, values, base, statistics.fmean(shares) if shares else None)
    last = number + 1 == len(settings) or settings[number + 1].keep_ratio != setting.keep_ratio
    for paper in published:
      if last and abs((1 - paper.pruned) - (setting.keep_ratio or 1.0)) < 0.004:
        line(f"{100 * (1 - paper.pruned):g} %", paper.label, paper.scores, whole.scores if whole else {}, paper.share)
  notes = [
    f"{title}: {len(result.problems)} of {len(result.table.rows)} questions could not be asked and count as wrong."
    for title, result in zip(names, results)
    if result.problems
  ]
  notes += [
    f"{title}: {result.table.skipped} rows without a picture were left out, as VLMEvalKit does."
    for title, result in zip(names, results)
    if result.table.skipped
  ]
  if published:
    notes.append(
      'Rows labelled "paper:" or "authors:" show published figures, which were not measured here; their percentages '
      "refer to the paper's unpruned scores."
    )
  return "\n".join(lines + ([""] + notes if notes else [])) + "\n"


def titles(results: Sequence[Result]) -> list[str]:
  """Each benchmark's title, or the file's name where several files are of the same benchmark."""
  titles = [result.benchmark.title for result in results]
  return [title if titles.count(title) == 1 else result.table.name for title, result in zip(titles, results)]


def _cell(value, base):
  if value is None:
    return ""
  share = f" ({100 * value / base:.1f} %)" if base else ""
  return (f"{value:.0f}" if value > 200 else f"{value:.1f}") + share


def plot(results: Sequence[Result], settings: Sequence[plan.Setting], suffix: str = ".png") -> bytes:
  """plot.png and plot.pdf: the score against the share of visual tokens kept, one panel per benchmark and one curve per row.

  Intervals are shown where the score is the mean over questions. Of more rows than can be told apart, those with the largest
  mean share of the unpruned scores are shown.
  """
  rows: dict[str, list[list[tuple[float, float, float, float]]]] = {}
  shares: dict[str, list[float]] = {}
  for number, result in enumerate(results):
    interval, whole = intervals.bootstrap(len(result.table.rows)), result.headlines[0]
    for setting, score, each in zip(settings, result.headlines, result.scores):
      if setting.keep_ratio is not None:
        is_mean = abs(100 * statistics.fmean(each) - score) < 1e-6
        low, high = [100 * bound for bound in interval(np.asarray(each))] if is_mean else [score, score]
        points = rows.setdefault(setting.selector, [[] for _ in results])
        points[number].append((100 * setting.keep_ratio, score, low, high))
        shares.setdefault(setting.selector, []).append(score / whole if whole else 0.0)
  shown = sorted(sorted(rows, key=lambda name: -statistics.fmean(shares[name]))[: figures.MOST], key=list(rows).index)
  panels = [
    figures.Panel(f"{title}, {result.benchmark.headline}", {name: rows[name][number] for name in shown}, result.headlines[0])
    for number, (result, title) in enumerate(zip(results, titles(results)))
  ]
  return figures.encode(figures.curves(panels, "score"), suffix)


def seconds(entries: Mapping[int, Mapping[str, Any]]) -> str:
  """seconds.jsonl: for every batch, its questions and the seconds of each stage, compilation included."""
  return "".join(
    json.dumps({"batch": number, "questions": len(entry["rows"]), "seconds": entry["seconds"]}) + "\n"
    for number, entry in sorted(entries.items())
  )


def paired(results: Sequence[Result], settings: Sequence[plan.Setting], reference: str | None) -> str:
  """intervals.md: each row's mean score over questions, in percent, with its interval, and its difference to a reference.

  Args:
    results: of every file.
    settings: in the order of the answers.
    reference: `plan.Setting.selector` of the rows to compare with at the same share, or None.
  """
  lines = [
    "Mean score over questions in %, with 95 % bootstrap intervals. Some benchmarks sum up scores in another way: table.md."
  ]
  if reference is not None:
    lines[0] += (
      f" Differences are to `{reference}` on the same questions, in points, with the p-value of the exact sign test."
    )
  for result, title in zip(results, titles(results)):
    interval, rows = intervals.bootstrap(len(result.table.rows)), []
    scores = {plan.name(setting): np.asarray(each, float) for setting, each in zip(settings, result.scores)}
    for setting, each in zip(settings, scores.values()):
      low, high = interval(each)
      other = scores.get(f"{reference} {setting.keep_ratio:g}") if setting.keep_ratio is not None else None
      compared = None if other is None or setting.selector == reference else intervals.paired(each, other, interval)
      kept = "100 %" if setting.keep_ratio is None else f"{100 * setting.keep_ratio:g} %"
      label = "unpruned" if setting.keep_ratio is None else setting.selector
      rows.append(
        [kept, label, f"{100 * each.mean():.1f} ({100 * low:.1f} to {100 * high:.1f})", intervals.describe(compared)]
      )
    columns = ["visual tokens", "method", title, f"difference to `{reference}`"]
    lines += [
      "",
      *tables.table(columns[: 3 + (reference is not None)], [row[: 3 + (reference is not None)] for row in rows], left=2),
    ]
  return "\n".join(lines) + "\n"
