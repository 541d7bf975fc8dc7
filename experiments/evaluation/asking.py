"""All batches of a run: each process answers its share, records it in a journal, and waits for the others."""

from __future__ import annotations

from collections.abc import Sequence
import pathlib
import time
from typing import Any

from absl import logging
import jax
import tqdm

from experiments.evaluation import answering
from experiments.evaluation import plan
from experiments.evaluation.benchmarks import tsv
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.running import journal
from experiments.running import watching


def report(problem: str, strict: bool) -> None:
  """Reports a row that cannot be asked.

  Raises:
    ValueError: the problem, if `strict`.
  """
  if strict:
    raise ValueError(problem)
  logging.warning("left out, counts as wrong: %s", problem)


def ask_all(
  answerer: answering.Answerer,
  directory: pathlib.Path,
  conditions: dict[str, Any],
  batches: Sequence[plan.Batch],
  tables: Sequence[tsv.Table],
  found: Sequence[Benchmark],
  shown: Sequence[frozenset[int]],
  strict: bool,
  watch: watching.Watch,
) -> dict[int, dict[str, Any]]:
  """Answers this process's share of the batches, and waits for the shares of the others.

  Args:
    answerer: to answer with.
    directory: of the journals, which all processes see.
    conditions: of `manifest.make`.
    batches: of all processes.
    tables: the files.
    found: their benchmarks.
    shown: positions of the rows that the gallery shows, for each file.
    strict: whether a row that cannot be asked is an error.
    watch: of the run.

  Returns:
    The entries of all batches, by number.
  """
  index, count = jax.process_index(), jax.process_count()
  done = finished(directory, conditions, batches)
  mine = [batch for batch in batches if batch.number % count == index]
  waiting = [batch for batch in mine if batch.number not in done]
  questions = lambda some: sum(len(batch.rows) for batch in some)
  prepare = lambda batch: answerer.prepare(batch, tables[batch.table], found[batch.table])
  records = journal.Journal(directory / f"{index:05d}.jsonl", conditions, apart=True)
  begun = len(mine) - len(waiting)
  watch.begin(begun)
  with tqdm.tqdm(total=questions(mine), initial=questions(mine) - questions(waiting), unit="question") as progress:
    for step, prepared in enumerate(answering.prefetched(prepare, waiting), begun):
      for problem in prepared.problems.values():
        report(problem, strict)
      number = prepared.batch.table
      with watch.step(step):
        entry = answerer.answer(prepared, tables[number], shown[number])
      progress.update(len(prepared.batch.rows))
      seconds = {f"seconds/{stage}": value for stage, value in entry["seconds"].items()}
      # Before the journal: what a resumed run writes again replaces it.
      watch.write(step + 1, questions=progress.n, questions_per_second=progress.format_dict["rate"] or 0.0, **seconds)
      records.append(entry)
  records.close()
  while len(entries := finished(directory, conditions, batches)) < len(batches):
    time.sleep(1)
  return entries


def finished(
  directory: pathlib.Path, conditions: dict[str, Any], batches: Sequence[plan.Batch]
) -> dict[int, dict[str, Any]]:
  """The entries of the batches that any process has finished, by number.

  Raises:
    ValueError: the directory holds another run, or batches of other rows.
  """
  entries = {}
  for path in sorted(directory.glob("*.jsonl")):
    for entry in journal.read(path, conditions):
      number = entry["batch"]
      if number >= len(batches) or {*map(int, entry["rows"])} != {*batches[number].rows}:
        raise ValueError(
          f"output_dir: {path} has answers to other questions, since pictures or videos beside the data have appeared or "
          "gone; give another directory"
        )
      entries[number] = entry
  return entries
