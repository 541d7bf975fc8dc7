"""How far bfloat16 is from float32: the first token's logits, and which visual tokens HAWK keeps.

  python -m experiments.speed.precision --baseline=transformers
  python -m experiments.accuracy --dtype=bfloat16 --output_dir=out/bfloat16      # right answers, beside --dtype=float32

Random weights are drawn in float32 and rounded to bfloat16, and both versions see the same pictures of noise. Logits are
those of the unpruned prompt; their error is the largest difference, as a share of the largest logit in float32. The
baseline's bfloat16 is compared with its own float32. There is no --mesh, which would not change what bfloat16 rounds. Prints
a Markdown table; writes precision.json.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

import jax
import numpy as np
import tqdm

from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.running import files
from experiments.speed import comparison
from hawk_jax.pruning import Pruning
from models import generation
from models import registry
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import params as params_lib

_CONFIGS = pathlib.Path(__file__).parents[1] / "configs"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  preset: str = command.option("cpu", "A configuration in experiments/configs.")
  pictures: int = command.option(8, "Number of pictures, each with a prompt of its own.", least=1)
  side: int = command.option(784, "Height and width of a picture in pixels.", least=1)
  text_tokens: int = command.option(44, "Number of text tokens in a prompt.", least=4)
  keep_ratio: tuple[float, ...] = command.option(
    (0.4, 0.198, 0.1), "Share of the visual tokens to keep; repeat the flag for several."
  )
  baseline: str = command.option("none", "Implementation whose error stands beside ours.", choices=("none", "transformers"))
  output_dir: str = command.option("out/precision", "Directory for precision.json.")

  def __post_init__(self):
    super().__post_init__()
    for ratio in self.keep_ratio:
      Pruning(keep_ratio=ratio)
    comparison.check_installed(self.baseline)


def run(settings: Settings) -> dict[str, Any]:
  """Measures, writes the file, and returns its content: for every picture, errors of logits and shares of the kept set."""
  output = files.output_directory("output_dir", settings.output_dir)
  directory = _CONFIGS / settings.preset
  model = registry.build(directory, directory_lib.read_config(directory))
  params = params_lib.init(model)
  rounded = jax.tree.map(lambda x: x.astype("bfloat16"), params)
  baselines = []
  if settings.baseline != "none":
    from experiments.speed.transformers_baseline import Baseline  # needs torch

    baselines = [
      Baseline(directory, dtype, dict(hf.tensors(model, weights)))
      for dtype, weights in (("float32", params), ("bfloat16", rounded))
    ]
  size = (settings.side, settings.side)
  pictures = []
  for number in tqdm.trange(settings.pictures, unit="picture"):
    arrays = model.synthetic_batch([size], settings.text_tokens, np.random.default_rng(number))
    inputs = model.pack(**arrays)
    exact, low = (
      [_answer(model, weights, inputs, ratio) for ratio in (1.0, *settings.keep_ratio)] for weights in (params, rounded)
    )
    found = {"ours": _error(exact[0].logits[0, 0], low[0].logits[0, 0])}
    if baselines:
      everything = np.arange(arrays["input_ids"].shape[1])[None]
      first, second = (one.answer(one.tensors(arrays), everything, 0)[0][0] for one in baselines)
      found[settings.baseline] = _error(first, second)
    visual = int(inputs.prompt.visual_counts[0])
    text = int(inputs.prompt.text_counts[0])
    same = {
      f"{ratio:g}": _same(one.kept_positions[0], other.kept_positions[0], text)
      for ratio, one, other in zip(settings.keep_ratio, exact[1:], low[1:])
    }
    pictures.append({"logits": found, "kept": same, "visual_tokens": visual})
  report = {"preset": settings.preset, "device": environment.device(), "pictures": pictures}
  files.write(output / "precision.json", json.dumps(report, indent=1) + "\n")
  print(
    f"\n{settings.preset}, {settings.pictures} pictures of {settings.side} x {settings.side}; {environment.device()}, "
    f"{environment.today()}; {environment.versions()}\n"
  )
  print("\n".join(_table(pictures)))
  return report


def _answer(model, params, inputs, keep_ratio: float):
  return generation.generate(model, params, inputs, keep_ratio=keep_ratio, max_new_tokens=1, return_logits=True)


def _error(exact, low) -> float:
  """Largest difference of logits as a share of the largest logit."""
  exact, low = (np.asarray(logits, np.float32) for logits in (exact, low))
  return float(np.abs(exact - low).max() / np.abs(exact).max())


def _same(exact, low, text: int) -> float:
  """Share of the visual tokens that float32 keeps and bfloat16 keeps too; both keep all text."""
  exact, low = ({*np.asarray(kept)[np.asarray(kept) >= 0].tolist()} for kept in (exact, low))
  return (len(exact & low) - text) / (len(exact) - text)


def _table(pictures) -> list[str]:
  spread = lambda values: f"{100 * np.mean(values):.2f} % ({100 * min(values):.2f} to {100 * max(values):.2f})"
  rows = [
    [f"error of the logits, {name}", spread([one["logits"][name] for one in pictures])] for name in pictures[0]["logits"]
  ]
  rows += [
    [f"tokens kept by both, {name} kept", spread([one["kept"][name] for one in pictures])] for name in pictures[0]["kept"]
  ]
  return tables.table(["bfloat16 beside float32", "mean (smallest to largest)"], rows, left=1)


if __name__ == "__main__":
  command.main(Settings, run)
