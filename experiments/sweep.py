"""Runs a command at every combination of some settings, and puts all results into one table.

  python -m experiments.sweep --command=evaluate --config=experiments/configs/digits.py
  python -m experiments.sweep --command=accuracy --set=questions=200 --set=selector=hawk,random --set=keep_ratio=0.4,0.2

A setting with several values varies; a setting with one is the same at all points. `--config` is the command's; what its
`get_hyper` returns varies too: a dict of lists, of which every combination is a point, or a list of dicts, each a point.

Points run one after another in one process, so that they share compiled programs. Each has a directory of its own in the
output directory. Interrupted at any moment, the same command resumes; a point that failed is tried again. With --shard=I/N,
numbered from 0, it runs every N-th point; several machines that see the output directory share a sweep so. --print prints
one such command per point instead, for a launcher. Writes table.md and table.csv with all points that are done, whoever ran
them. A point that fails does not end the others, but the exit status.
"""

from __future__ import annotations

from collections.abc import Sequence
import contextlib
import dataclasses
import hashlib
import itertools
import json
import pathlib
import re
import shlex
import time
import traceback
from typing import Any

from absl import flags
import jax

from experiments import accuracy
from experiments import benchmark
from experiments import compare
from experiments import evaluate
from experiments import generate
from experiments import head_importance
from experiments import train
from experiments.reporting import tables
from experiments.running import command
from experiments.running import compilation_cache
from experiments.running import configs
from experiments.running import files
from experiments.running import processes
from experiments.running import remote
from experiments.running import watching
from experiments.running.settings import option

# Each has Settings with an output_dir, run(settings), and summarize(result): a row of the table, by column.
COMMANDS = {
  module.__name__.rpartition(".")[-1]: module
  for module in (accuracy, benchmark, compare, evaluate, generate, head_importance, train)
}
_RESULT = "sweep.json"  # in a point's directory
_LONGEST = 100  # characters of the name of a point's directory


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  command: str = option("evaluate", "What to run at every point.", choices=lambda: COMMANDS)
  config: str | None = option(None, "Config file of that command, FILE.py or FILE.py:ARGUMENTS.")
  set: tuple[str, ...] = option(
    (), "NAME=VALUE or NAME=VALUE,VALUE,... for a flag of the command; repeat the flag for several."
  )
  shard: str = option("0/1", "I/N runs every N-th point, from point I on; points are numbered from 0.")
  print: bool = option(False, "Whether only to print one command per point.")
  output_dir: str = option("out/sweep", "Directory for the table, and for a directory per point.")

  def __post_init__(self):
    super().__post_init__()
    self.numbers  # noqa: B018, checks it

  @property
  def numbers(self) -> tuple[int, int]:
    """I and N of `shard`.

    Raises:
      ValueError: a malformed shard.
    """
    found = re.fullmatch(r"(\d+)/(\d+)", self.shard)
    if not found or int(found[1]) >= int(found[2]):
      raise ValueError(f"shard: got {self.shard!r}, must be I/N with I from 0 to N - 1")
    return int(found[1]), int(found[2])


@dataclasses.dataclass(frozen=True)
class Point:
  """One run of the command.

  Attributes:
    label: value of every setting that varies, by name.
    directory: of the run.
    settings: of the run.
  """

  label: dict[str, Any]
  directory: pathlib.Path
  settings: Any

  @property
  def name(self) -> str:
    """The label as text."""
    return ", ".join(f"{name}={_text(value)}" for name, value in self.label.items()) or "the only point"

  def conditions(self) -> dict[str, Any]:
    """What the result depends on: every setting that differs from its default."""
    ignored = ("output_dir", *watching.NAMES)
    values = {field.name: (getattr(self.settings, field.name), field.default) for field in dataclasses.fields(self.settings)}
    different = {name: value for name, (value, default) in values.items() if value != default and name not in ignored}
    return json.loads(json.dumps(different))

  def result(self) -> dict[str, Any]:
    """What the sweep wrote when the run ended: `settings`, `seconds`, and `summary` or `error`; an error where it did not.

    Raises:
      ValueError: the directory belongs to a run with other settings.
    """
    path = self.directory / _RESULT
    if not path.is_file():
      return {"error": "not run yet"}
    now = self.conditions()
    try:
      content = json.loads(path.read_text())
      before = {**content["settings"]}
    except (ValueError, TypeError, LookupError, RecursionError) as error:
      raise ValueError(f"output_dir: {path} is damaged; delete it to run its point again") from error
    if before != now:
      differ = sorted(name for name in {*before, *now} if before.get(name) != now.get(name))
      raise ValueError(f"output_dir: {path} belongs to a run with other {', '.join(differ)}; give another directory")
    return content


def run(settings: Settings) -> list[dict[str, Any]]:
  """Runs this shard's points, writes the table of all points, and returns its rows.

  Raises:
    ValueError: settings that do not fit the command, or a point of this shard that failed or that another run is at.
  """
  index, count = settings.numbers
  points = make_points(settings, pathlib.Path(settings.output_dir))
  if settings.print:
    for number in range(len(points))[index::count]:
      print(_command_line(settings, number, len(points)) + f"  # {points[number].name}")
    return []
  # Other shards may run at the same time.
  results = ("table.md", "table.csv")
  with files.resumable_directory("output_dir", settings.output_dir, shared=True, results=results, alone=False) as output:
    return _run(settings, output)


def _run(settings: Settings, output: pathlib.Path) -> list[dict[str, Any]]:
  index, count = settings.numbers
  points = make_points(settings, output)
  mine = points[index::count]
  waiting = [point for point, result in zip(mine, _results(mine)) if "error" in result]
  for number, point in enumerate(waiting, 1):
    print(f"== {number} of {len(waiting)}: {point.name}", flush=True)
    _run_point(COMMANDS[settings.command], point)
    compilation_cache.release_if_many()
  first = not jax.process_index()
  with files.locked(output) if first else contextlib.nullcontext():  # so that no older table replaces that of another shard
    results = _results(points)
    rows = _table(points, results)
    if first:
      _write(output, points, rows)
  if failed := sum("error" in result for result in results[index::count]):
    raise ValueError(f"{failed} of {len(mine)} points failed; {output / 'table.md'} says why")
  return rows


def make_points(settings: Settings, directory: pathlib.Path) -> list[Point]:
  """All points, in order, the last setting varying fastest.

  Args:
    settings: of the sweep.
    directory: of the sweep.

  Raises:
    ValueError: what does not fit the command.
  """
  kind = COMMANDS[settings.command].Settings
  allowed = [name for name in command.names_of(kind) if name != "output_dir"]
  config = configs.load(settings.config, [*allowed, *command.names_of(processes.Options)])
  given: dict[str, list[str]] = {}
  for argument in settings.set:
    name, equals, values = argument.partition("=")
    if not equals or name in given:
      raise ValueError(f"set: got {argument!r}, must be NAME=VALUE,... with a name that no other --set has")
    given[name] = values.split(",")
  configs.check_keys("set", given, allowed)
  # A setting on the command line replaces the one of the file.
  hyper = [{name: value for name, value in point.items() if name not in given} for point in _product(config.hyper)]
  hyper = [point for number, point in enumerate(hyper) if point not in hyper[:number]]
  for point in hyper:
    configs.check_keys(f"config: get_hyper of {settings.config}", point, allowed)
  varied = [name for name in {name: None for point in hyper for name in point} if len({str(p.get(name)) for p in hyper}) > 1]
  varied += [name for name, values in given.items() if len(values) > 1]
  points = []
  for point in hyper:
    for combination in itertools.product(*given.values()):
      chosen = dict(zip(given, combination))
      made = _settings(kind, chosen, {**config.values, **point})
      label = {name: getattr(made, name) for name in varied}
      at = directory / _directory_name(label)
      points.append(Point(label, at, dataclasses.replace(made, output_dir=str(at))))
  names = [point.directory for point in points]
  if len(set(names)) < len(names):
    twice = next(point for number, point in enumerate(points) if point.directory in names[:number])
    raise ValueError(f"set: {twice.name} is there twice")
  return points


def _results(points: Sequence[Point]) -> list[dict[str, Any]]:
  """The points' results as the first process sees them."""
  return json.loads(processes.from_first(json.dumps([point.result() for point in points]).encode()))


def _table(points: Sequence[Point], results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
  """A row per point: what varies, then what the command found, or `error`."""
  rows = []
  for point, result in zip(points, results):
    label = {name: _text(value) for name, value in point.label.items()}
    rows.append({**label, **result.get("summary", {}), **({"error": result["error"]} if "error" in result else {})})
  return rows


def _product(hyper: Any) -> list[dict[str, Any]]:
  if hyper is None:
    return [{}]
  if isinstance(hyper, dict) and all(isinstance(values, (list, tuple)) and values for values in hyper.values()):
    return [dict(zip(hyper, values)) for values in itertools.product(*hyper.values())]
  if isinstance(hyper, (list, tuple)) and hyper and all(isinstance(point, dict) for point in hyper):
    return list(hyper)
  raise ValueError("config: get_hyper must return a dict of lists that are not empty, or a list of dicts")


def _settings(kind, chosen: dict[str, str], config: dict[str, Any]):
  """The command's settings as its flags and config would give them."""
  values = flags.FlagValues()
  command.define_flags(kind, values)
  try:
    values(["", *(f"--{name}={value}" for name, value in chosen.items())])
  except flags.Error as error:
    raise ValueError(f"set: {error}") from error
  return command.read_flags(kind, values, config)


def _run_point(module, point: Point) -> None:
  """Runs a point and writes its result, whatever happens but an interruption."""
  output = files.output_directory("output_dir", str(point.directory))
  (output / "error.txt").unlink(missing_ok=True)
  began = time.perf_counter()
  try:
    result: dict[str, Any] = {"summary": module.summarize(module.run(remote.fetched(point.settings)))}
  except files.InUseError:
    raise
  except Exception as error:
    print(f"failed: {error}", flush=True)
    files.write(output / "error.txt", traceback.format_exc())
    result = {"error": " ".join(f"{type(error).__name__}: {error}".split())}
  result |= {"seconds": time.perf_counter() - began, "settings": point.conditions()}
  files.write(output / _RESULT, json.dumps(result, indent=1) + "\n")


def _write(output: pathlib.Path, points: Sequence[Point], rows: Sequence[dict[str, Any]]) -> None:
  """Writes and prints the table."""
  columns = list({name: None for row in rows for name in row if name != "error"})
  columns += ["error"] if any("error" in row for row in rows) else []
  cells = [[_text(row.get(name, "")) for name in columns] for row in rows]
  text = "\n".join(tables.table(columns, cells, left=len(points[0].label) or 1)) + "\n"
  files.write(output / "table.md", text)
  files.write(output / "table.csv", tables.csv(columns, ([row.get(name, "") for name in columns] for row in rows)))
  print(f"\n{text}\nwritten to {output}: table.md, table.csv")


def _text(value: Any) -> str:
  if isinstance(value, (list, tuple)):
    return "+".join(map(_text, value))
  if isinstance(value, float):
    return f"{value:.4g}"
  return " ".join(str(value).replace("|", "/").split())


def _directory_name(label: dict[str, Any]) -> str:
  """The label as the name of a directory; long ones are cut, with a hash of all."""
  name = re.sub(r"[^\w.,+=-]+", "_", ",".join(f"{name}={_text(value)}" for name, value in label.items())) or "point"
  return name if len(name) <= _LONGEST else f"{name[: _LONGEST - 13]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _command_line(settings: Settings, number: int, count: int) -> str:
  """The command that runs one point."""
  arguments = [f"--command={settings.command}", f"--config={settings.config}"][: 2 if settings.config else 1]
  arguments += [f"--set={argument}" for argument in settings.set]
  arguments += [f"--shard={number}/{count}", f"--output_dir={settings.output_dir}"]
  return shlex.join(["python", "-m", "experiments.sweep", *arguments])


if __name__ == "__main__":
  command.main(Settings, run)
