"""Measures how often an embedded model is right: with all visual tokens, with few of them, and blind.

  python -m experiments.accuracy --questions=2000

Pictures and handwriting are from the test split, which training never sees. Prints a Markdown table of the share of right
answers (exact match) by kind of question, and writes accuracy.json, and metrics.jsonl, the record of the run.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from typing import Any

import numpy as np
import tqdm

from experiments.digits import embedded
from experiments.digits import task
from experiments.reporting import tables
from experiments.running import command
from experiments.running import files
from experiments.running import processes
from experiments.running import watching
from hawk_jax import importance
from hawk_jax import pruning
from hawk_jax import selectors
from models import generate
from models import generation
from models import load_processor
from models import registry
from models import stages
from models.checkpoints import params as params_lib


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings, watching.Settings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory.")
  questions: int = command.option(2000, "Number of test questions, the kinds in turn.", least=1)
  keep_ratio: tuple[float, ...] = command.option(
    (0.4, 0.2, 0.1), "Share of the visual tokens to keep; repeat the flag for several."
  )
  selector: tuple[str, ...] = command.option(
    ("hawk", "random"),
    "Rule that picks tokens; repeat the flag for several.",
    choices=lambda: [name for name, selector in selectors.SELECTORS.items() if "scores" not in selector.needs],
  )
  head_importance: str = command.option("uniform", "preset:NAME, uniform, or a JSON file.")
  batch_size: int = command.option(40, "Questions per batch.", least=1)
  dtype: str = command.option("float32", "Dtype of parameters and computation.", choices=params_lib.DTYPES)
  output_dir: str = command.option("out/accuracy", "Directory for accuracy.json.")

  def __post_init__(self):
    super().__post_init__()
    for pruned in self.ways.values():
      pruning.Pruning(**pruned)

  @property
  def ways(self) -> dict[str, dict[str, Any]]:
    """Arguments of Pruning for each way, by the name of its row; no arguments for all tokens."""
    return {"all tokens": {}} | {
      f"{selector} {ratio:g}": dict(keep_ratio=ratio, selector=selector)
      for ratio in self.keep_ratio
      for selector in self.selector
    }


def run(settings: Settings) -> dict[str, Any]:
  """Answers, writes the file, and returns its content: `accuracy` has a row for each way of pruning, by kind of question."""
  output = files.output_directory("output_dir", settings.output_dir, results=("accuracy.json",))
  directory, model = registry.describe(settings.model, processes.mesh(settings.mesh))
  for arguments in settings.ways.values():
    stages.check(pruning.Pruning(**arguments), model)
  weights = importance.load(settings.head_importance, model.config.text.num_attention_heads)
  processor = load_processor(str(directory))
  params = registry.load_params(directory, model, settings.dtype)
  examples = task.dataset("test", settings.questions)

  def ask(numbers, inputs, **arguments):
    """Whether each of the questions with these numbers is answered correctly."""
    out = generate(
      model,
      params,
      inputs,
      weights,
      selector_seed=numbers,
      max_new_tokens=4,
      eos_token_ids=processor.eos_token_ids,
      **arguments,
    )
    texts = processor.decode(out.tokens, out.lengths)
    return [text == examples[number][1].answer for number, text in zip(numbers, texts)]

  measures = {name for selector in settings.selector for name in selectors.SELECTORS[selector].measures}
  right = {name: [] for name in (*settings.ways, "no picture", "no question")}
  starts = range(0, len(examples), settings.batch_size)
  with contextlib.closing(watching.Watch(settings, output)) as watch:
    for batch in watch.steps(tqdm.trange(len(starts), unit="batch")):
      numbers = np.arange(starts[batch], min(starts[batch] + settings.batch_size, len(examples)))
      pictures, questions = zip(*(([examples[number][0]], examples[number][1].text) for number in numbers))
      pack = lambda images, prompts: model.pack(**processor(images=images, prompts=prompts))
      inputs = pack(pictures, questions)
      features = generation.encode_pictures(model, params, inputs, measures)
      for name, arguments in settings.ways.items():
        right[name] += ask(numbers, inputs, features=features, **arguments)
      right["no picture"] += ask(numbers, pack(None, questions))
      right["no question"] += ask(numbers, pack(pictures, [""] * len(numbers)), features=features)
      watch.write(batch + 1, **{f"right/{name}": np.mean(hits) for name, hits in right.items()})

  kinds = np.asarray([question.kind for _, question in examples])
  groups = {"all": np.full(len(kinds), True)} | {kind: kinds == kind for kind in task.KINDS if kind in kinds}
  accuracy = {
    name: {kind: float(np.mean(np.asarray(hits)[group])) for kind, group in groups.items()} for name, hits in right.items()
  }
  report = {
    "model": settings.model,
    "dtype": settings.dtype,
    "questions": len(examples),
    "head_importance": weights.tolist(),
    "accuracy": accuracy,
  }
  files.write(output / "accuracy.json", json.dumps(report, indent=1) + "\n")

  print(f"\n{len(examples)} questions on unseen handwriting, {settings.model}, head importance {settings.head_importance}\n")
  rows = ([name, *(f"{100 * share:.1f}" for share in row.values())] for name, row in accuracy.items())
  print("\n".join(tables.table(["share of right answers, %", *groups], rows)))
  return report


def summarize(report: dict[str, Any]) -> dict[str, Any]:
  """A row of `experiments.sweep`: the share of right answers for each way of pruning; a single one is called `pruned`."""
  ways = [name for name in report["accuracy"] if name not in ("all tokens", "no picture", "no question")]
  alone = {ways[0]: "pruned"} if len(ways) == 1 else {}
  return {alone.get(name, name): row["all"] for name, row in report["accuracy"].items()}


if __name__ == "__main__":
  command.main(Settings, run)
