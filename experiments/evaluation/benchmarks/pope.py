"""POPE: yes-no questions about objects that are or are not in a picture; F1 of `Yes`."""

from __future__ import annotations

from collections.abc import Sequence
import statistics

from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.evaluation.benchmarks.questions import yes_no
from experiments.evaluation.benchmarks.tsv import Table


def f1(categories: Sequence[str], answers: Sequence[str], extracted: Sequence[str]) -> dict[str, float]:
  """F1 of `Yes`, accuracy, precision and recall; a question of several categories counts in each of them.

  Args:
    categories: of every question, several separated by commas.
    answers: `Yes` or `No`.
    extracted: `Yes`, `No` or `Unknown`.
  """
  triples = [
    (name, answer, said) for names, answer, said in zip(categories, answers, extracted) for name in names.split(",")
  ]
  result = _f1([triple[1:] for triple in triples])
  for category in dict.fromkeys(name for name, _, _ in triples if name):
    measured = _f1([(answer, said) for name, answer, said in triples if name == category])
    result[f"{category} F1"], result[f"{category} accuracy"] = measured["F1"], measured["accuracy"]
  return result


def _f1(pairs):
  right = sum(answer == said == "Yes" for answer, said in pairs)
  said_yes, is_yes = (sum(pair[at] == "Yes" for pair in pairs) for at in (1, 0))
  precision, recall = right / said_yes if said_yes else 0.0, right / is_yes if is_yes else 0.0
  harmonic = 2 * precision * recall / (precision + recall) if right else 0.0
  accuracy = statistics.fmean(answer == said for answer, said in pairs)
  return {"F1": 100 * harmonic, "accuracy": 100 * accuracy, "precision": 100 * precision, "recall": 100 * recall}


def aggregate(table: Table, predictions: Sequence[str], scores: Sequence[float]) -> dict[str, float]:
  """`f1` of a table."""
  del scores
  return f1(table.cells("category"), [row.answer for row in table.rows], [yes_no.extract(text) for text in predictions])


BENCHMARK = Benchmark(
  title="POPE",
  pattern="POPE",
  columns=("category",),
  headline="F1",
  prompt=yes_no.prompt,
  score=yes_no.score,
  aggregate=aggregate,
  check=yes_no.check,
)
