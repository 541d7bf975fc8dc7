"""Questions a second of `experiments.evaluate`'s batches against a plain loop that asks one question at a time.

  python -m experiments.benchmark_throughput

Both decode the same pictures from the same file and answer under the same settings. The loop does for every question and
setting what README's example does: picture, prompt, answer. Each runs once uncounted, so that nothing is compiled on the
clock. Prints a table and fails if the two do not give the same answers.
"""

from __future__ import annotations

import time

from absl import flags
import tqdm

from experiments import command
from experiments import embedded
from experiments.benchmarks import prompts
from experiments.benchmarks import suites
from experiments.benchmarks import tsv
from experiments.evaluation import answering
from experiments.evaluation import plan
from hawk_jax import importance
from models import checkpoint
from models import generate
from models import load_model
from models import load_processor

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
_DATA = flags.DEFINE_string("data", "experiments/benchmark_files/digits.tsv", "TSV file.")
_SELECTORS = flags.DEFINE_multi_string("selector", ["hawk", "random", "divprune"], "Rules that pick tokens.")
_KEEP_RATIOS = flags.DEFINE_multi_float("keep_ratio", [0.4, 0.2, 0.1], "Shares of the visual tokens to keep.")
_LIMIT = flags.DEFINE_integer("limit", None, "Only so many rows.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 16, "Questions a batch.", lower_bound=1)
_MAX_NEW_TOKENS = flags.DEFINE_integer("max_new_tokens", 64, "Most tokens of an answer.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Of each, in turn; the best counts.", lower_bound=1)


def batched(answerer, table, suite, batches):
  """Every row's answers under every setting, as `evaluate` finds them."""
  answers = {}
  for prepared in answering.prefetched(lambda batch: answerer.prepare(batch, table, suite), batches):
    for at, entry in answerer.answer(prepared, table)["rows"].items():
      answers[at] = [answer["prediction"] for answer in entry["answers"]]
  return answers


def one_by_one(answerer, table, suite):
  """The same by a plain loop."""
  answers = {}
  for at, row in enumerate(table.rows):
    answers[at] = []
    for setting in answerer.settings:
      processor = answerer.processor
      arrays = processor(images=[table.pictures(row)], prompts=[prompts.text(suite, row, answerer.family)])
      out = generate(answerer.model, answerer.params, answerer.model.pack(**arrays), answerer.head_importance,
                     keep_ratio=setting.keep_ratio, selector=setting.selector or "hawk", selector_seed=row.number,
                     max_new_tokens=answerer.options.max_new_tokens, eos_token_ids=processor.eos_token_ids)
      answers[at] += processor.decode(out.tokens, out.lengths)
  return answers


def main():
  table = tsv.read(_DATA.value, limit=_LIMIT.value)
  suite = suites.find(table.name, table.columns)
  settings = plan.settings(_SELECTORS.value, _KEEP_RATIOS.value)
  model, params = load_model(_MODEL.value, dtype=command.default_dtype())
  weights = importance.load("uniform", model.config.text.num_attention_heads)
  family = prompts.FAMILIES[checkpoint.read_config(checkpoint.resolve(_MODEL.value))["model_type"]]
  options = answering.Options(batch_size=_BATCH_SIZE.value, max_new_tokens=_MAX_NEW_TOKENS.value)
  batches = plan.batches([table], options.batch_size, None, None)
  processor = load_processor(_MODEL.value)

  print(f"{len(table.rows)} questions, {command.model_name(_MODEL.value)}, {options.batch_size} a batch; "
        f"{command.device()}, {command.today()}; {command.versions()}\n\n"
        "| settings | one by one, questions/s | batches, questions/s | ratio |\n|---|---:|---:|---:|")
  for chosen in (settings[:1], settings):
    answerer = answering.Answerer(model, params, processor, family, weights, chosen, options)
    ways = {"one by one": lambda answerer=answerer: one_by_one(answerer, table, suite),
            "batches": lambda answerer=answerer: batched(answerer, table, suite, batches)}
    answers, seconds = {name: way() for name, way in ways.items()}, {name: [] for name in ways}
    if answers["one by one"] != answers["batches"]:
      raise ValueError("the two ways disagree")
    for _ in tqdm.trange(_ROUNDS.value, unit="round"):
      for name, way in ways.items():
        began = time.perf_counter()
        way()
        seconds[name].append(time.perf_counter() - began)
    plain, quick = (len(table.rows) / min(values) for values in seconds.values())
    print(f"| {len(chosen)} | {plain:.1f} | {quick:.1f} | {quick / plain:.1f} |")


if __name__ == "__main__":
  command.run(main)
