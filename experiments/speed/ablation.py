"""Compares the ablation of all heads in one pass with a plain loop: the same numbers in less time.

  python -m experiments.speed.ablation

The plain loop answers every question once with all heads and once without each, with a full forward pass, vision included,
for every head and picture. Compilation is not measured. Prints a Markdown table; fails if the numbers differ.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import embedded
from experiments.digits import task
from experiments.estimation import data
from experiments.estimation import estimators
from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.running import processes
from experiments.speed import timing
from models import load_model
from models import load_processor
from models import stages
from models import teacher_forcing

# Log-likelihoods of batches of different shapes differ by rounding; greedy answers do not.
_TOLERANCES = {"log_likelihood": 1e-3, "accuracy": 0.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.MeshSettings):
  """Settings of the command."""

  model: str = command.option(str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
  examples: int = command.option(4, "Number of examples of each kind of question.", least=1)
  batch_size: int = command.option(5, "Examples per batch of the ablation in one pass.", least=1)
  metric: str = command.option("log_likelihood", "What the drop is measured of.", choices=_TOLERANCES)
  rounds: int = command.option(3, "Number of measurements behind each figure.", least=1)


@functools.partial(jax.jit, static_argnames="model")
def forward(params, inputs, answers, *, model) -> teacher_forcing.Verdict:
  """A whole forward pass, from pixels to the verdict on the reference answers."""
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(inputs.prompt, apply(inputs.vision, method="encode"), method=stages.prefill)
  return apply(inputs.prompt, prefill, answers, method=teacher_forcing.judge)


def without(params: dict[str, Any], head: int, head_dim: int) -> dict[str, Any]:
  """Parameters whose first layer ignores a head: its rows of the output projection are zero."""
  layer = params["language_model"]["layers_0"]
  kernel = jnp.asarray(layer["self_attn"]["o_proj"]["kernel"]).at[head * head_dim : (head + 1) * head_dim].set(0)
  attention = {**layer["self_attn"], "o_proj": {"kernel": kernel}}
  return {**params, "language_model": {**params["language_model"], "layers_0": {**layer, "self_attn": attention}}}


def plain_loop(model, params, rows: Sequence[tuple], metric: str) -> np.ndarray:
  """[H, N] drops, one forward pass each.

  Args:
    model: a port.
    params: its parameters.
    rows: for each of N pictures, its packed inputs and its answer [1, T].
    metric: `accuracy` or `log_likelihood`.
  """
  text = model.config.text
  ablated = [params] + [without(params, head, text.head_dim) for head in range(text.num_attention_heads)]
  field = "right" if metric == "accuracy" else "log_likelihood"
  scores = np.asarray([[float(getattr(forward(some, *row, model=model), field)[0]) for row in rows] for some in ablated])
  return scores[:1] - scores[1:]


def run(settings: Settings) -> dict[str, Any]:
  """Compares, measures, and returns the seconds of both ways and the largest difference of their numbers."""
  processor = load_processor(settings.model)
  model, params = load_model(settings.model, mesh=processes.mesh(settings.mesh))
  examples = data.from_digits("calibration", task.KINDS, settings.examples)
  batches = data.Batches(model, params, processor, examples, settings.batch_size)
  estimator = estimators.Settings(metric=settings.metric)
  rows = []
  for example in examples:
    arrays = processor(images=[[example.picture]], prompts=[example.question])
    rows.append((model.pack(**arrays), data.reference_answers(processor, [example])))

  drops = lambda number: estimators.ablation(model, params, batches[number], estimator)
  ours = lambda: np.concatenate([drops(number) for number in range(len(batches))], axis=1)
  loop = lambda: plain_loop(model, params, rows, settings.metric)
  difference = float(np.abs(ours() - loop()).max())
  if not difference <= _TOLERANCES[settings.metric]:
    raise ValueError(f"metric: the two ways differ by {difference} in {settings.metric}")
  clock = timing.Clock()
  clock.add("ours", ours)
  clock.add("plain loop", loop)
  clock.run(settings.rounds)

  heads, slow = model.config.text.num_attention_heads, clock.median("plain loop")
  print(
    f"\n{len(examples)} pictures, {heads} heads, {settings.metric}, {environment.model_name(settings.model)}; "
    f"{environment.device()}, {environment.today()}; {environment.versions()}. Largest difference: {difference:.1e}.\n"
  )
  cells = [
    [name, f"{clock.median(name):.2f} ({min(seconds):.2f} to {max(seconds):.2f})", f"{slow / clock.median(name):.1f}"]
    for name, seconds in clock.seconds.items()
  ]
  print("\n".join(tables.table(["", "seconds: median (smallest to largest)", "times faster"], cells)))
  return {"pictures": len(examples), "heads": heads, "seconds": clock.seconds, "largest_difference": difference}


if __name__ == "__main__":
  command.main(Settings, run)
