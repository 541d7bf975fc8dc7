"""Trains an embedded model on the digits task.

  python -m experiments.train --architecture=qwen2_5_vl --output_dir=out/train

Writes the model to model/ in the output directory. An interrupted run resumes from its last checkpoint when the same command
is given again. Every batch depends only on the seed and on the number of its step, so that the result is the same, bit for
bit, as that of a run without interruption.

The model answers several questions about each picture (`experiments.digits.batches`). At first, pictures hold fewer digits,
and auxiliary losses help the model to find the answers (`experiments.digits.losses`): every visual token is to show its own
cell, and with --probe_left also the cell to its left; heads half way up the decoder are to look at what the question is
about. With --point_first, two heads of the first layer are to do so too, and half of its heads are to look at the grey
digits whatever the question, so that head importance has something to find. Later, half of the pictures lose visual tokens
that no question is about, so that the model gets used to gaps.

Without --point_first and with --nopoint_middle, no loss tells any head where to look. With --read_first, --see_few and
--answer_early a model learns to find the answers all the same: first, the vision tower alone learns to read (with
--probe_left, also what is to the left of each cell), and then stays as it is; each question sees, at first, only the visual
tokens that it is about (`experiments.digits.curriculum`); and every token of a question, not only its last, is to show the
answer. `experiments/configs/unshaped.py` has these settings:

  python -m experiments.sweep --command=train --config=experiments/configs/unshaped.py --output_dir=out/unshaped
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent import futures
import contextlib
import dataclasses
import functools
import json
import pathlib
import time
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from experiments.digits import batches
from experiments.digits import curriculum
from experiments.digits import embedded
from experiments.digits import losses
from experiments.digits import training
from experiments.running import command
from experiments.running import files
from experiments.running import processes
from experiments.running import remote
from experiments.running import watching
from hawk_jax import checks
from models.checkpoints import directory
from models.checkpoints import hf

SETTINGS = "settings.json"
# As shares of the steps after those in which the tower learns to read.
_AUXILIARY_UNTIL = 0.5  # until then the auxiliary losses fade out
_CURRICULUM_UNTIL = 0.25  # until then pictures get fuller
_GAPS_FROM = 0.35  # from then on visual tokens are removed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings, watching.Settings):
  """Settings of the command."""

  architecture: str = command.option("qwen2_5_vl", "Which embedded model.", choices=lambda: embedded.ARCHITECTURES)
  output_dir: str = command.option("out/train", "Directory for checkpoints and, in model/, the trained model.")
  steps: int = command.option(4000, "Optimizer steps, of which the first warm up.", least=2)
  batch_size: int = command.option(8, "Pictures per step.", least=1)
  questions: int = command.option(12, "Questions per picture.", least=1)
  optimizer: str = command.option("adamw", "Which optimizer.", choices=training.OPTIMIZERS)
  learning_rate: float = command.option(2e-3, "Peak learning rate.", least=0.0)
  init_from: str | None = command.option(
    None,
    "Checkpoint to start from instead of random weights; pictures are then full and lose visual tokens from the first step.",
  )
  probe_left: bool = command.option(
    False,
    "Whether visual tokens are to show the cell to their left: half way up the decoder or, with --read_first, at the end of "
    "the vision tower.",
  )
  answer_early: bool = command.option(False, "Whether every token of the question is to show the answer, at first.")
  point_first: bool = command.option(
    False,
    "Whether heads of the first layer are shaped: two to look at what the question "
    "is about, and half of all heads to look at the grey digits.",
  )
  point_middle: bool = command.option(
    True, "Whether heads half way up the decoder are to look at what the question is about, at first."
  )
  read_first: int = command.option(
    0,
    "Of the steps, the first so many, in which only the vision tower learns to read; later it stays as it is. "
    "0: all of the model learns in all steps.",
    least=0,
  )
  see_few: bool = command.option(
    False,
    "Whether each question sees, at first, only the visual tokens that it is about, and more of the others as more answers "
    "are right.",
  )
  heads: int | None = command.option(
    None,
    "Query heads of each decoder layer, all of them together as wide as the layer; by default those of the architecture.",
  )
  seed: int = command.option(0, "Seed of weights and data.", least=0)
  save_every: int = command.option(100, "Steps between checkpoints.", least=1)
  evaluate_every: int = command.option(250, "Steps between evaluations.", least=1)

  def __post_init__(self):
    super().__post_init__()
    remote.check_local("output_dir", self.output_dir)
    if self.read_first >= self.steps:
      raise ValueError(f"read_first: got {self.read_first}, must be below steps, {self.steps}")

  def part(self, step: int) -> str:
    """What a step trains: `tower`, `decoder`, or `all` of the model."""
    if not self.read_first:
      return "all"
    return "tower" if step < self.read_first else "decoder"

  @property
  def phases(self) -> dict[str, int]:
    """Number of steps of each part."""
    return ({"tower": self.read_first} if self.read_first else {}) | {self.part(self.steps): self.steps - self.read_first}

  @property
  def probes(self) -> tuple[str, ...]:
    """What visual tokens are to show, see `losses.make_probes`."""
    return ("cells", "left") if self.probe_left else ("cells",)

  @property
  def auxiliary(self) -> tuple[str, ...]:
    """Names of the auxiliary losses beside the answers."""
    chosen = {
      **dict.fromkeys(self.probes, not self.read_first),
      "early": self.answer_early,
      "point_middle": self.point_middle,
      "point_first": self.point_first,
    }
    return tuple(name for name, used in chosen.items() if used)


def run(settings: Settings) -> pathlib.Path:
  """Trains, or resumes training, and returns the directory of the trained model."""
  processes.check_alone("training")
  with files.resumable_directory("output_dir", settings.output_dir, results=(SETTINGS, watching.RECORD)) as output:
    return _run(settings, output)


def _run(settings: Settings, output: pathlib.Path) -> pathlib.Path:
  content = _check_same_run(output / SETTINGS, settings)
  student = embedded.make_student(settings.architecture, settings.heads)
  model = student.model
  make_optimizer = functools.partial(training.make_optimizer, settings.optimizer, learning_rate=settings.learning_rate)
  optimizers = {part: make_optimizer(steps=steps) for part, steps in settings.phases.items()}
  params = {
    "model": _first_params(settings, model),
    "probes": losses.make_probes(settings.probes, model.config.text.hidden_size),
  }
  # On the device that Orbax restores to, so that a resumed run has the same compiled program.
  first = {part: optimizer.init(training.split(params, part)[0]) for part, optimizer in optimizers.items()}
  state = {"params": params, "opt_state": first}
  if settings.see_few:
    state["curriculum"] = curriculum.start()
  state = jax.device_put(state, jax.devices()[0])
  size = sum(x.nbytes for x in jax.tree.leaves(state))
  files.write(output / SETTINGS, content)
  print(
    f"{settings.architecture}: {sum(x.size for x in jax.tree.leaves(params['model'])) / 1e6:.2f} million parameters, "
    f"vocabulary {student.tokenizer.get_vocab_size()}",
    flush=True,
  )

  options = ocp.CheckpointManagerOptions(max_to_keep=2, save_interval_steps=settings.save_every)
  with contextlib.ExitStack() as stack:
    manager = stack.enter_context(ocp.CheckpointManager(output / "checkpoints", options=options))
    start = manager.latest_step() or 0
    watch = stack.enter_context(contextlib.closing(watching.Watch(settings, output)))
    watch.begin(start)
    if start:
      state = manager.restore(start, args=ocp.args.StandardRestore(state))
      print(f"resuming after step {start}", flush=True)
    began, seen = time.perf_counter(), start
    for step, batch in _made_ahead(functools.partial(_make_batch, settings, student), start, settings.steps):
      part = settings.part(step)
      weight = max(0.0, 1.0 - _share(settings, step) / _AUXILIARY_UNTIL)
      with watch.step(step):
        state, metrics = training.train_step(
          state, batch, weight, model=model, optimizer=optimizers[part], auxiliary=settings.auxiliary, part=part
        )
      done = step + 1
      if done % 25 == 0:
        terms = ", ".join(f"{name} {float(value):.3f}" for name, value in metrics.items() if "/" not in name)
        rate, left = (done - seen) / (time.perf_counter() - began), settings.steps - done
        print(f"step {done} of {settings.steps}: {terms}; {rate:.2f} steps/s, {left / rate / 60:.0f} min left", flush=True)
        watch.write(done, **metrics, steps_per_second=rate)
        began, seen = time.perf_counter(), done
      if done == settings.steps or manager.should_save(done):
        manager.wait_until_finished()
        files.check_space(output, size)
        manager.save(done, args=ocp.args.StandardSave(state), force=True)
      if done % settings.evaluate_every == 0 or done == settings.steps:
        shares = training.accuracy(state["params"]["model"], student, settings.seed, settings.batch_size, settings.questions)
        watch.write(done, **{f"right/{kind}": share for kind, share in shares.items()})
        print(
          f"step {done}: right on new handwriting: {', '.join(f'{kind} {share:.3f}' for kind, share in shares.items())}",
          flush=True,
        )
    manager.wait_until_finished()

  embedded.write_assets(output / "model", student)
  hf.save(output / "model", model, jax.device_get(state["params"]["model"]), dtype="float16")
  print(f"model written to {output / 'model'}")
  return output / "model"


def _first_params(settings: Settings, model) -> dict[str, Any]:
  if settings.init_from:
    return hf.load(directory.resolve(settings.init_from, "init_from"), model)
  return jax.jit(model.init)(jax.random.key(settings.seed), model.example())["params"]


def _check_same_run(path: pathlib.Path, settings: Settings) -> str:
  """The settings that the result depends on, as JSON, compared with those of the run that is to be resumed."""
  wanted = {
    name: value
    for name, value in dataclasses.asdict(settings).items()
    if name not in ("output_dir", "save_every", "evaluate_every", *watching.NAMES)
  }
  content = json.dumps(wanted, default=str) + "\n"
  checks.regular_file(path)
  if path.exists() and path.read_text(errors="replace") != content:
    before = path.read_text(errors="replace").strip()
    if _with_defaults(before, settings) != json.loads(content):
      raise ValueError(f"output_dir: {path.parent} holds a run with other settings, {before}, not {content.strip()}")
  return content


def _with_defaults(before: str, settings: Settings) -> Any:
  """The settings of an earlier run; those that it did not know had their defaults. None where they cannot be read."""
  defaults = {field.name: field.default for field in dataclasses.fields(settings)}
  try:
    known = json.loads(before)
  except ValueError:
    return None
  if not isinstance(known, dict):
    return None
  left_out = ("output_dir", "save_every", "evaluate_every", *watching.NAMES)
  return {name: value for name, value in (defaults | known).items() if name not in left_out}


def _share(settings: Settings, step: int) -> float:
  """How much of the training lies before a step, without the steps in which the tower learns to read; negative in these."""
  return (step - settings.read_first) / (settings.steps - settings.read_first)


def _make_batch(settings: Settings, student: embedded.Student, step: int) -> batches.Batch:
  """The batch of a step, which depends on nothing else."""
  share = _share(settings, step)
  difficulty = 1.0 if settings.init_from or share < 0 else min(1.0, 0.3 + 0.7 * share / _CURRICULUM_UNTIL)
  batch = batches.make_batch(
    student, np.random.default_rng([settings.seed, 1, step]), "train", settings.batch_size, settings.questions, difficulty
  )
  if share < (0 if settings.init_from else _GAPS_FROM):
    return batch
  return batches.drop_tokens(batch, np.random.default_rng([settings.seed, 3, step]))


def _made_ahead(make: Callable[[int], Any], start: int, stop: int) -> Iterator[tuple[int, Any]]:
  """Pairs of each number from `start` to `stop` and its `make(number)`; a thread makes the next one in advance."""
  with futures.ThreadPoolExecutor(1) as pool:
    pending = pool.submit(make, start)
    for number in range(start, stop):
      made, pending = pending.result(), pool.submit(make, number + 1)
      yield number, made


def summarize(result: pathlib.Path) -> dict[str, Any]:
  """A row of `experiments.sweep`: where the model is."""
  return {"model": str(result)}


if __name__ == "__main__":
  command.main(Settings, run)
