"""Watching a run: metrics.jsonl, the record of its numbers; TensorBoard and Weights & Biases on request; traces of steps.

  with contextlib.closing(watching.Watch(settings, output)) as watch:
    watch.begin(3)
    for number in range(3, 10):
      with watch.step(number):
        ...
      watch.write(number + 1, loss=0.5)

A line of metrics.jsonl holds `step`, `time` in seconds since 1970, and numbers by name. A resumed run drops the lines of
steps that it runs again. Only the first process writes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
import contextlib
import dataclasses
import importlib
import json
import pathlib
import time
from typing import Any

import jax

from experiments.running import files
from experiments.running.settings import Checked
from experiments.running.settings import option

RECORD = "metrics.jsonl"
# The first steps of a run compile.
_SKIPPED = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(Checked):
  """Settings of commands that can be watched; no result depends on them."""

  tensorboard: bool = option(False, "Whether to write the numbers of metrics.jsonl for TensorBoard too; needs tensorboardX.")
  wandb: str | None = option(None, "Weights & Biases project that gets the numbers of metrics.jsonl too; needs wandb.")
  profile: int = option(
    0, f"Trace so many steps, after the first {_SKIPPED}, into profile/ in output_dir, for xprof.", least=0
  )

  def __post_init__(self):
    super().__post_init__()
    for name, package in (("tensorboard", "tensorboardX"), ("wandb", "wandb")):
      if getattr(self, name) and importlib.util.find_spec(package) is None:
        raise ValueError(f"{name}: needs the package {package}, which is not installed")


NAMES = tuple(field.name for field in dataclasses.fields(Settings))


class Watch:
  """Where a run's numbers and traces go."""

  def __init__(self, settings: Settings, output: pathlib.Path):
    """Opens nothing yet.

    Args:
      settings: of the command.
      output: its output directory.
    """
    self._settings, self._output = settings, output
    self._profile = 0 if jax.process_index() else settings.profile
    self._first, self._tracing = _SKIPPED, False
    self._written: set[tuple[int, frozenset[str]]] = set()  # step and names of every line
    self._writers: list[Callable[[int, dict[str, float]], Any]] = []
    self._open = contextlib.ExitStack()

  def begin(self, begun: int = 0) -> None:
    """Opens everything that the settings ask for.

    Args:
      begun: steps that are done already.
    """
    settings, output, self._first = self._settings, self._output, begun + _SKIPPED
    if jax.process_index():
      return
    path = output / RECORD
    lines = path.read_text(errors="replace").splitlines() if path.is_file() else []
    kept = [line for line in lines if _step(line) <= begun]
    files.write(path, "".join(f"{line}\n" for line in kept))
    self._written = {_key(**json.loads(line)) for line in kept}

    def append(step, numbers):
      with files.naming(path), open(path, "a") as file:
        file.write(json.dumps({"step": step, "time": time.time(), **numbers}) + "\n")

    self._writers.append(append)
    if settings.tensorboard:
      summary = importlib.import_module("tensorboardX").SummaryWriter(str(output / "tensorboard"))
      self._open.callback(summary.close)
      self._writers.append(
        lambda step, numbers: [summary.add_scalar(name, number, step) for name, number in numbers.items()]
      )
    if settings.wandb:
      wandb = importlib.import_module("wandb")
      run = wandb.init(project=settings.wandb, name=output.name, dir=str(output), config=dataclasses.asdict(settings))
      self._open.callback(run.finish)
      self._writers.append(lambda step, numbers: run.log(numbers, step=step))

  @contextlib.contextmanager
  def step(self, number: int) -> Iterator[None]:
    """Within it, one step of the run happens; steps count from 0."""
    if self._profile and number == self._first:
      jax.profiler.start_trace(str(self._output / "profile"))
      self._tracing = True
    with jax.profiler.StepTraceAnnotation("step", step_num=number):
      yield
      if self._tracing:  # until the devices are done
        jax.block_until_ready([jax.device_put(0.0, device) + 0 for device in jax.local_devices()])
    if self._tracing and number + 1 == self._first + self._profile:
      self._stop()

  def steps(self, numbers: Iterable[int], begun: int = 0) -> Iterator[int]:
    """The same numbers; each turn of a loop over them is a step of the run.

    Args:
      numbers: of the steps that are left.
      begun: steps that are done already.
    """
    self.begin(begun)
    for number in numbers:
      with self.step(number):
        yield number

  def write(self, step: int, **numbers: float) -> None:
    """Records numbers after so many steps, unless a run that this one resumes has recorded them."""
    if _key(step, **numbers) in self._written:
      return
    for writer in self._writers:
      writer(step, {name: float(number) for name, number in numbers.items()})

  def close(self) -> None:
    """Ends everything; a run with too few steps has traced those that it had."""
    if self._tracing:
      self._stop()
    self._open.close()

  def _stop(self) -> None:
    jax.profiler.stop_trace()
    self._tracing = False
    print(f"trace written; to see it: xprof --logdir={self._output / 'profile'}", flush=True)


def read(path: pathlib.Path) -> list[dict[str, float]]:
  """The lines of a metrics.jsonl."""
  return [json.loads(line) for line in path.read_text().splitlines()]


def _key(step: int, time: float = 0.0, **numbers: float) -> tuple[int, frozenset[str]]:
  """What makes a line unique."""
  del time
  return step, frozenset(numbers)


def _step(line: str) -> int:
  """The step of a line of metrics.jsonl; a line that was cut off or damaged belongs to none."""
  try:
    return int(json.loads(line)["step"])
  except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
    return 1 << 62
