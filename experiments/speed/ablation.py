"""Ablating all heads in one pass against a plain loop: the same numbers, and how much faster.

  python -m experiments.benchmark_ablation

The plain loop answers every question once with all heads and once without each, with one full forward pass, vision
included, for every head and picture. Compilation is not timed. Prints a Markdown table; fails if the numbers differ.
"""

from __future__ import annotations

import functools

from absl import flags
import jax
import jax.numpy as jnp
import numpy as np

from experiments import command
from experiments import data
from experiments import digits
from experiments import embedded
from experiments import estimators
from experiments import timing
from models import load_model
from models import load_processor
from models import teacher_forcing

_MODEL = flags.DEFINE_string("model", str(embedded.DIRECTORY / "qwen2_5_vl"), "Checkpoint directory or hub id.")
_EXAMPLES = flags.DEFINE_integer("examples", 4, "Of each kind of question.", lower_bound=1)
_BATCH_SIZE = flags.DEFINE_integer("batch_size", 5, "Examples a batch, for ours.", lower_bound=1)
_METRIC = flags.DEFINE_enum("metric", "log_likelihood", ["accuracy", "log_likelihood"], "Whose drop is measured.")
_ROUNDS = flags.DEFINE_integer("rounds", 3, "Measurements of each figure.", lower_bound=1)

# Log-likelihoods of batches of different shapes differ by rounding.
_TOLERANCE = 1e-3


@functools.partial(jax.jit, static_argnames="model")
def forward(params, inputs, answers, *, model) -> teacher_forcing.Verdict:
  """A whole forward pass, from pixels to the reference answers' likelihood."""
  apply = functools.partial(model.apply, {"params": params})
  prefill = apply(inputs.prompt, apply(inputs.vision, method="encode"), method="prefill")
  return apply(inputs.prompt, prefill, answers, method=teacher_forcing.judge)


def without(params, head: int, head_dim: int):
  """Parameters whose first layer's output projection ignores a head."""
  layer = params["language_model"]["layers_0"]
  kernel = jnp.asarray(layer["self_attn"]["o_proj"]["kernel"]).at[head * head_dim:(head + 1) * head_dim].set(0)
  attention = {**layer["self_attn"], "o_proj": {"kernel": kernel}}
  return {**params, "language_model": {**params["language_model"], "layers_0": {**layer, "self_attn": attention}}}


def plain_loop(model, params, rows, metric: str) -> np.ndarray:
  """[H, N] drops.

  Args:
    model: a port.
    params: its parameters.
    rows: for each picture, its packed inputs and its answer [1, T].
    metric: `accuracy` or `log_likelihood`.
  """
  text = model.config.text
  ablated = [params] + [without(params, head, text.head_dim) for head in range(text.num_attention_heads)]
  judge = lambda tree, row: forward(tree, *row, model=model)
  name = "right" if metric == "accuracy" else "log_likelihood"
  scores = np.asarray([[float(getattr(judge(tree, row), name)[0]) for row in rows] for tree in ablated])
  return scores[:1] - scores[1:]


def main():
  model, params = load_model(_MODEL.value, mesh=command.mesh())
  processor = load_processor(_MODEL.value)
  examples = data.from_digits("calibration", digits.KINDS, _EXAMPLES.value)
  settings = estimators.Settings(metric=_METRIC.value)
  rows = []
  for example in examples:
    arrays = processor(images=[[example.picture]], prompts=[example.question])
    rows.append((model.pack(**arrays), data.reference_answers(processor, [example])))

  batches = [examples[start:start + _BATCH_SIZE.value] for start in range(0, len(examples), _BATCH_SIZE.value)]
  ours = lambda: np.concatenate(
      [estimators.ablation(model, params, data.make_batch(model, params, processor, batch), settings) for batch in batches],
      axis=1)
  loop = lambda: plain_loop(model, params, rows, settings.metric)
  difference = float(np.abs(ours() - loop()).max())
  if difference > (_TOLERANCE if _METRIC.value == "log_likelihood" else 0):
    raise ValueError(f"the estimates differ by {difference}")
  clock = timing.Clock()
  clock.add("ours", ours)
  clock.add("plain loop", loop)
  clock.run(_ROUNDS.value)

  heads, slow = model.config.text.num_attention_heads, clock.median("plain loop")
  print(f"\n{len(examples)} pictures, {heads} heads, {settings.metric}, {command.model_name(_MODEL.value)}; "
        f"{command.device()}, {command.today()}; {command.versions()}. Largest difference: {difference:.1e}.\n")
  print("| | seconds: median (least to most) | times faster |")
  print("|---|---:|---:|")
  for name, seconds in clock.seconds.items():
    median = clock.median(name)
    print(f"| {name} | {median:.2f} ({min(seconds):.2f} to {max(seconds):.2f}) | {slow / median:.1f} |")


if __name__ == "__main__":
  command.run(main)
