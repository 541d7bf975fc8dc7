"""Questions per second of `experiments.evaluate`'s batches against a plain loop that asks one question at a time.

  python -m experiments.speed.throughput

Both decode the same pictures from the same file and answer under the same settings. For every question and setting, the loop
does what the README's example does: picture, prompt, answer. Each runs once before it is measured, so that compilation does
not count. There is no --mesh: both ways use one device, so that only the batches differ. Prints a Markdown
table; fails if the answers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

from experiments.digits import embedded
from experiments.evaluation import answering
from experiments.evaluation import benchmarks
from experiments.evaluation import plan
from experiments.evaluation.benchmarks import tsv
from experiments.evaluation.benchmarks.benchmark import Benchmark
from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.speed import timing
from hawk_jax import importance
from models import generate
from models import load_processor
from models import registry
from models.checkpoints import directory as directory_lib

_DIGITS = pathlib.Path(__file__).parents[1] / "benchmark_files" / "digits.tsv"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  data: str = command.option(str(_DIGITS), "TSV file in VLMEvalKit's layout.")
  selector: tuple[str, ...] = command.option(
    ("hawk", "random", "divprune"), "Rule that picks tokens; repeat the flag for several."
  )
  keep_ratio: tuple[float, ...] = command.option(
    (0.4, 0.2, 0.1), "Share of the visual tokens to keep, in (0, 1); repeat the flag for several."
  )
  limit: int | None = command.option(None, "Only the first so many rows of the file.", least=1)
  batch_size: int = command.option(16, "Questions per batch.", least=1)
  max_new_tokens: int = command.option(64, "Most tokens of an answer.", least=1)
  rounds: int = command.option(3, "Number of measurements of each way, in turn; the best counts.", least=1)


def batched(
  answerer: answering.Answerer, table: tsv.Table, benchmark: Benchmark, batches: Sequence[plan.Batch]
) -> dict[int, list[str]]:
  """Every row's answers under every setting, as `experiments.evaluate` finds them."""
  answers = {}
  for prepared in answering.prefetched(lambda batch: answerer.prepare(batch, table, benchmark), batches):
    for at, row in answerer.answer(prepared, table)["rows"].items():
      answers[at] = [answer["prediction"] for answer in row["answers"]]
  return answers


def one_by_one(answerer: answering.Answerer, table: tsv.Table, benchmark: Benchmark) -> dict[int, list[str]]:
  """The same by a plain loop."""
  model, processor = answerer.model, answerer.processor
  answers: dict[int, list[str]] = {}
  for at, row in enumerate(table.rows):
    answers[at] = []
    for setting in answerer.settings:
      arrays = processor(images=[table.pictures(row)], prompts=[benchmark.prompt(row, answerer.family)])
      out = generate(
        model,
        answerer.params,
        model.pack(**arrays),
        answerer.head_importance,
        selector_seed=row.number,
        max_new_tokens=answerer.options.max_new_tokens,
        eos_token_ids=processor.eos_token_ids,
        **dataclasses.asdict(setting.pruning),
      )
      answers[at] += processor.decode(out.tokens, out.lengths)
  return answers


def run(settings: Settings) -> list[dict[str, Any]]:
  """Compares, measures, and returns a row for the unpruned setting alone and one for all settings."""
  table = tsv.read(settings.data, limit=settings.limit)
  benchmark = benchmarks.find(table.name, table.columns)
  prunings = plan.settings(settings.selector, settings.keep_ratio)
  directory, model = registry.describe(settings.model)
  weights = importance.load("uniform", model.config.text.num_attention_heads)
  family = registry.find(directory, directory_lib.read_config(directory)).prompt_family
  processor = load_processor(str(directory))
  options = answering.Options(batch_size=settings.batch_size, max_new_tokens=settings.max_new_tokens)
  batches = plan.batches([table], options.batch_size, None, None)
  params = registry.load_params(directory, model, environment.default_dtype())

  rows = []
  for chosen in (prunings[:1], prunings):
    answerer = answering.Answerer(model, params, processor, family, weights, chosen, options)
    ways = {
      "one by one": lambda answerer=answerer: one_by_one(answerer, table, benchmark),
      "batches": lambda answerer=answerer: batched(answerer, table, benchmark, batches),
    }
    if ways["one by one"]() != ways["batches"]():
      raise ValueError("batch_size: the answers of batches differ from those of single questions")
    clock = timing.Clock()
    for name, way in ways.items():
      clock.add(name, way)
    clock.run(settings.rounds)
    rows.append({"settings": len(chosen), "questions": len(table.rows), "seconds": clock.seconds})

  print(
    f"\n{len(table.rows)} questions, {environment.model_name(settings.model)}, {options.batch_size} per batch; "
    f"{environment.device()}, {environment.today()}; {environment.versions()}\n"
  )
  speed = lambda row, name: row["questions"] / min(row["seconds"][name])
  cells = [
    [
      row["settings"],
      f"{speed(row, 'one by one'):.1f}",
      f"{speed(row, 'batches'):.1f}",
      f"{speed(row, 'batches') / speed(row, 'one by one'):.1f}",
    ]
    for row in rows
  ]
  print(
    "\n".join(
      tables.table(["settings", "one by one, questions per second", "batches, questions per second", "ratio"], cells, left=0)
    )
  )
  return rows


if __name__ == "__main__":
  command.main(Settings, run)
