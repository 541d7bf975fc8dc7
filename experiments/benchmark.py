"""Measures seconds and bytes, pruned and unpruned, beside transformers' torch model and the machine's limits.

  python -m experiments.benchmark --preset=cpu --baseline=transformers
  python -m experiments.benchmark --preset=cpu --dtype=bfloat16 --baseline=transformers --baseline_dtype=float32 \
      --baseline_dtype=bfloat16
  python -m experiments.benchmark --preset=gpu-7b --baseline=transformers        # one large GPU; also gpu-3b, gpu-llava-7b
  python -m experiments.benchmark --model=Qwen/Qwen2.5-VL-7B-Instruct --dtype=bfloat16

All functions are called in turn, round after round, so that a machine that slows down slows all of them; a figure is the
median of the rounds, with the smallest and the largest. Random weights are made on the device, and the baseline gets the
same arrays. Outputs are compared before anything is measured. The machine's limits are the best of several programs in the
same rounds; a stage that is faster than its limit fails the benchmark. Without --mesh, one device is used. With it, limits
are those of one device times their number, temporaries are those of each device, and there is no baseline. Prints Markdown
tables; writes benchmark.json, benchmark.md and benchmark.png.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import json
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.running import command
from experiments.running import compilation_cache
from experiments.running import environment
from experiments.running import files
from experiments.running import method
from experiments.speed import cases as cases_lib
from experiments.speed import comparison
from experiments.speed import compilation
from experiments.speed import flops
from experiments.speed import memory
from experiments.speed import report as report_lib
from experiments.speed import timing
from experiments.speed.programs import Programs
from hawk_jax.pruning import Pruning
from models import generation
from models import registry
from models import stages
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import params as params_lib

RESULTS = ("benchmark.json", "benchmark.md", "benchmark.png")
_CONFIGS = pathlib.Path(__file__).parent / "configs"
_PRESETS = {
  "cpu": "float32",
  "gpu-7b": "bfloat16",
  "gpu-3b": "bfloat16",
  "gpu-llava-7b": "bfloat16",
  "internvl3-8b": "bfloat16",
  "llava-onevision-7b": "bfloat16",
  "qwen3-vl-8b": "bfloat16",
}
# On a CPU, which computes one prompt as fast as several, larger batches take minutes and show nothing.
_BATCH_SIZES = (4, 8)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(cases_lib.Settings):
  """Settings of the command."""

  preset: str = command.option("cpu", "A configuration in experiments/configs with random weights.", choices=_PRESETS)
  model: str | None = command.option(None, "Checkpoint directory or hub id instead of a preset.")
  dtype: str | None = command.option(
    None,
    "Dtype of parameters and computation; by default the preset's, and float32 for a checkpoint.",
    choices=params_lib.DTYPES,
  )
  baseline: str = command.option(
    "none", "Implementation to compare with in the same rounds; transformers needs torch.", choices=("none", "transformers")
  )
  baseline_dtype: tuple[str, ...] = command.option(
    (), "Dtype of the baseline, by default ours; repeat the flag for several.", choices=params_lib.DTYPES
  )
  stages: tuple[str, ...] = command.option((), method.STAGES + " Repeat the flag for several.")
  side: int = command.option(784, "Height and width of the picture in pixels.", least=1)
  text_tokens: int = command.option(44, "Number of text tokens in the prompt.", least=4)
  batch_size: tuple[int, ...] = command.option(
    (),
    "Number of prompts of a batch that is measured too, 4 and 8 by default except on a CPU; repeat the flag for several.",
    least=2,
  )
  steps: int = command.option(15, "Number of decoding steps after the first token.", least=1)
  rounds: int = command.option(5, "Number of measurements behind each figure.", least=1)
  compile_only: bool = command.option(False, "Only measure how long the programs take to compile, without weights.")
  output_dir: str = command.option("out/benchmark", "Directory for results.")

  def __post_init__(self):
    super().__post_init__()
    for text in self.stages:
      Pruning(stages=text)
    comparison.check_installed(self.baseline)
    if self.mesh and (self.baseline != "none" or self.compile_only):
      raise ValueError("mesh: the baseline and compile_only use one device; give them without a mesh")

  @property
  def pruned(self) -> Pruning:
    """Pruning at the first keep ratio, for batches and compilation."""
    return Pruning(keep_ratio=self.ratios[min(1, len(self.ratios) - 1)])

  @property
  def parameter_dtype(self) -> str:
    """`dtype`, or its default."""
    return self.dtype or ("float32" if self.model else _PRESETS[self.preset])

  @property
  def batch_sizes(self) -> tuple[int, ...]:
    """`batch_size`, or its default."""
    return self.batch_size or (() if jax.default_backend() == "cpu" else _BATCH_SIZES)

  @property
  def baseline_dtypes(self) -> list[str]:
    """Dtypes of the baseline, each once; none where there is no baseline."""
    return [] if self.baseline == "none" else list(dict.fromkeys(self.baseline_dtype or (self.parameter_dtype,)))


@dataclasses.dataclass(frozen=True)
class _Cases:
  """What is measured.

  Attributes:
    arrays: of one prompt.
    singles: that prompt at every ratio.
    staged: that prompt with every schedule.
    rows: arrays of prompts with pictures of different sizes.
    alone: each of them, pruned.
    mixed: all of them in one batch.
    batches: arrays and case of prompts with pictures of one size, by batch size.
  """

  arrays: dict[str, np.ndarray]
  singles: list[cases_lib.Case]
  staged: list[cases_lib.Case]
  rows: list[dict[str, np.ndarray]]
  alone: list[cases_lib.Case]
  mixed: cases_lib.Case
  batches: dict[int, tuple[dict[str, np.ndarray], cases_lib.Case]]


def run(settings: Settings) -> dict[str, Any]:
  """Measures, writes the files, and returns the content of benchmark.json.

  With `compile_only`, nothing is written, and `compilations` of what is returned holds `compilation.Compilation`s.

  Raises:
    ValueError: outputs unlike the baseline's; a stage faster than the machine's limits, after the files are written.
  """
  output = files.output_directory("output_dir", settings.output_dir, results=RESULTS)
  directory = directory_lib.resolve(settings.model) if settings.model else _CONFIGS / settings.preset
  model = registry.build(directory, directory_lib.read_config(directory), settings.make_mesh())
  dtype = settings.parameter_dtype
  if settings.compile_only:
    case = cases_lib.make(model, model.synthetic_batch(_sizes(settings), settings.text_tokens), settings.pruned, "")
    found = compilation.measure(model, case, settings.steps, dtype)
    for one in found:
      print(f"{settings.model or settings.preset}, {one}")
    return {"compilations": found}

  cases = _make_cases(settings, model)
  if settings.model:
    params = registry.load_params(directory, model, dtype)
  else:
    params = params_lib.init(model, dtype=dtype)
  with compilation_cache.kept_in(None):
    report = _measure(settings, model, params, directory, cases)
  content, text, figure = (output / result for result in RESULTS)
  files.write(content, json.dumps(report, indent=1) + "\n")
  summary = report_lib.summarize(report)
  files.write(text, summary + "\n")
  report_lib.plot(figure, report)
  print(summary)
  print(f"\nwritten to {output}: {', '.join(RESULTS)}")
  report_lib.check_limits(report)
  return report


def _sizes(settings, shares: Sequence[float] = (1,)) -> list[tuple[int, int]]:
  """Height and width of pictures whose heights are shares of the side."""
  return [(round(settings.side * share), settings.side) for share in shares]


def _make_cases(settings: Settings, model) -> _Cases:
  """Packs all prompts, which also checks the settings before there are weights."""
  rng, text_tokens = np.random.default_rng(0), settings.text_tokens
  batch = lambda sizes: model.synthetic_batch(sizes, text_tokens, rng)
  arrays = batch(_sizes(settings))
  singles = [cases_lib.make(model, arrays, Pruning(keep_ratio=ratio), f"{ratio:g}") for ratio in settings.ratios]
  staged = [cases_lib.make(model, arrays, Pruning(stages=text), text) for text in settings.stages]
  rows = [batch([size]) for size in _sizes(settings, cases_lib.MIXED_HEIGHTS)]
  alone = [cases_lib.make(model, row, settings.pruned, f"row {number}") for number, row in enumerate(rows)]
  mixed = cases_lib.make(model, cases_lib.merge(rows), settings.pruned, "batch")
  batches = {}
  for size in settings.batch_sizes:
    prompts = batch(_sizes(settings) * size)
    batches[size] = prompts, cases_lib.make(model, prompts, settings.pruned, f"x{size}")
  for case in (*singles, *staged, *alone, mixed, *(case for _, case in batches.values())):
    generation.check_length(model, case.inputs.prompt, settings.steps + 1)
  return _Cases(arrays, singles, staged, rows, alone, mixed, batches)


def _open_baseline(directory: pathlib.Path, dtype: str, weights: Mapping[str, Any]) -> comparison.Baseline:
  from experiments.speed.transformers_baseline import Baseline  # needs torch

  return Baseline(directory, dtype, weights)


def _measure(settings: Settings, model, params, directory: pathlib.Path, cases: _Cases) -> dict[str, Any]:
  """The content of benchmark.json."""
  dtype, steps = settings.parameter_dtype, settings.steps
  compiled = lambda case: Programs(model, params, case, steps)
  ours = [compiled(case) for case in cases.singles]
  baselines, checks = {}, []
  for kind in settings.baseline_dtypes:
    name = f"{settings.baseline} {kind}"
    baselines[name] = _open_baseline(directory, kind, dict(hf.tensors(model, params)))
    checks += comparison.check_outputs(ours, name, baselines[name], cases.arrays, steps, {kind, dtype})

  clock = timing.Clock()
  products, readings = timing.multiplications(dtype), timing.readings()
  for name, limit in {**products, **readings}.items():
    clock.add(name, limit.run)
  clock.add("vision", ours[0].vision)
  decode = lambda programs: clock.add(f"decode {programs.case.name}", programs.decode, lambda: programs.first_token()[:1])
  for programs in ours:
    for stage in ("first_token", "prefill", "prune", "language", "answer"):
      clock.add(f"{stage} {programs.case.name}", getattr(programs, stage))
    decode(programs)
  staged = [compiled(case) for case in cases.staged]
  for programs in staged:
    for stage in ("first_token", "vision", "prefill", "answer"):
      clock.add(f"{stage} {programs.case.name}", getattr(programs, stage))
    decode(programs)
  mixed = compiled(cases.mixed)
  clock.add("batch", mixed.answer)
  alone = [compiled(case) for case in cases.alone]
  clock.add("one by one", lambda: [programs.answer() for programs in alone])
  batches = [(arrays, compiled(case)) for arrays, case in cases.batches.values()]
  for _, programs in batches:
    clock.add(f"first_token {programs.case.name}", programs.first_token)
    decode(programs)
  for name, baseline in baselines.items():
    comparison.add_baseline(clock, name, baseline, cases.arrays, ours, mixed, cases.rows, batches, steps)
  clock.run(settings.rounds)

  text, devices = model.config.text, 1 if model.mesh is None else model.mesh.size
  report = {
    "config": environment.model_name(settings.model or settings.preset),
    "dtype": dtype,
    "device": environment.device(),
    "mesh": settings.mesh,
    "date": environment.today(),
    "versions": environment.versions(),
    "rounds": settings.rounds,
    "matmul_flops_per_second": devices * clock.best_rate(products),
    "bandwidth_bytes_per_second": devices * clock.best_rate(readings),
    "baselines": list(baselines),
    "checks": checks,
    "visual_tokens": int(cases.singles[0].visual[0]),
    "text_tokens": settings.text_tokens,
    "steps": steps,
    "batch_sizes": list(cases.batches),
    "vision_flops": model.vision_flops(cases.arrays),
    "seconds": clock.seconds,
    "cases": [
      _describe(ratio, programs, text, steps, jnp.dtype(dtype).itemsize) for ratio, programs in zip(settings.ratios, ours)
    ],
  }
  if staged:
    report["staged"] = [_describe_staged(programs, model) for programs in staged]
  return report


def _describe(ratio: float, programs: Programs, text, steps: int, itemsize: int) -> dict[str, Any]:
  """Everything about a case except its seconds."""
  tokens = int(programs.case.tokens[0])
  return {
    "keep_ratio": ratio,
    "tokens": tokens,
    "cache_bytes": programs.cache_bytes,
    "language_flops": flops.language_prefill(text, tokens),
    "decode_bytes": flops.decode_bytes(text, tokens + steps // 2, 1, itemsize),
    "compile_seconds": programs.compile_seconds,
    "temporary_bytes": programs.temporary_bytes,
    "peak_bytes": memory.peak(programs.answer),
  }


def _describe_staged(programs: Programs, model) -> dict[str, Any]:
  """Everything about a schedule except its seconds."""
  schedule = stages.resolve(Pruning(stages=programs.case.name), model)
  blocks, layers = stages.depths(model)
  return {
    "stages": programs.case.name,
    "resolved": str(schedule),
    "tokens": int(programs.case.tokens[0]),
    "mean_share": schedule.mean_share(layers),
    "tower_share": schedule.tower_share(blocks),
    "cache_bytes": programs.cache_bytes,
    "compile_seconds": programs.compile_seconds,
    "temporary_bytes": programs.temporary_bytes,
  }


def summarize(report: dict[str, Any]) -> dict[str, Any]:
  """A row of `experiments.sweep`: median milliseconds of some stages at every keep ratio, or seconds of compilation."""
  if "compilations" in report:
    return {f"{one.program}, {one.start}, s": one.tracing + one.compiling for one in report["compilations"]}
  median = lambda stage, case: 1000 * float(np.median(report["seconds"][f"{stage} {case['keep_ratio']:g}"]))
  return {
    f"{stage.replace('_', ' ')} {case['keep_ratio']:g}, ms": median(stage, case)
    for case in report["cases"]
    for stage in ("first_token", "decode", "answer")
  }


if __name__ == "__main__":
  command.main(Settings, run)
