"""Commands that are killed, that fill their disk, or of which two start at once, end as if nothing had happened.

  python -m tests.interruption_checks kills --times=20   # kill -9 at random moments, and resume
  python -m tests.interruption_checks disks --times=4    # a tmpfs that is too small, then a larger one; needs root
  python -m tests.interruption_checks pairs              # two at once in one directory

Takes minutes, so it is not part of the test suite, which has a quick test of each of these. Ends with status 1 if a command
ended in another result than undisturbed, lost a record, or said something else than one line.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
import dataclasses
import hashlib
import importlib
import multiprocessing
import os
import pathlib
import random
import signal
import subprocess
import sys
import tempfile
import time

from flax import traverse_util
import numpy as np

from experiments import compare
from experiments import evaluate
from experiments import head_importance
from experiments import study
from experiments.digits import embedded
from models import load_model
from tests.experiments import small_training

MODEL = embedded.DIRECTORY / "qwen2_5_vl"
DATA = embedded.DIRECTORY.parent / "benchmark_files" / "digits.tsv"


def digest(content: bytes) -> str:
  return hashlib.sha256(content).hexdigest()


def file_digests(*patterns: str) -> Callable[[pathlib.Path], dict[str, str]]:
  """A function from a directory to the digests of the files in it that match."""

  def digests(directory):
    paths = {path for pattern in patterns for path in directory.glob(pattern) if path.is_file()}
    return {str(path.relative_to(directory)): digest(path.read_bytes()) for path in paths}

  return digests


def checkpoint_digests(directory: pathlib.Path) -> dict[str, str]:
  """Of a checkpoint in Orbax's format, whose files have random names: the digest of every parameter and every other file."""
  _, params = load_model(directory)
  arrays = {".".join(path): np.asarray(value) for path, value in traverse_util.flatten_dict(params).items()}
  return file_digests("*")(directory) | {name: digest(array.tobytes()) for name, array in arrays.items()}


@dataclasses.dataclass(frozen=True)
class Case:
  """A command on a tiny model.

  Attributes:
    arguments: its flags but the output directory.
    digests: of what must not depend on interruptions, in the output directory.
    resumes: whether it resumes after an interruption.
  """

  arguments: tuple[str, ...]
  digests: Callable[[pathlib.Path], dict[str, str]]
  resumes: bool = False


_IMPORTANCE = ("--examples=6", "--batch_size=2")
CASES = {
  "evaluate": Case(
    (f"--data={DATA}", "--limit=24", "--batch_size=2", "--max_new_tokens=4", "--gallery=2"),
    file_digests(*(name for name in evaluate.RESULTS if name != "seconds.jsonl")),
    resumes=True,
  ),
  "head_importance": Case(_IMPORTANCE, file_digests(head_importance.RESULT, head_importance.FIGURES[0]), resumes=True),
  "convert": Case((f"--model={MODEL}",), checkpoint_digests, resumes=True),
  "train": Case(
    ("--architecture=small", "--steps=6", "--batch_size=1", "--questions=3", "--save_every=1", "--evaluate_every=3"),
    file_digests("model/*"),
    resumes=True,
  ),
  "sweep": Case(
    ("--command=head_importance", "--set=examples=2,4,6", "--set=batch_size=2"),
    file_digests("table.*", "*/head_importance.*"),
    resumes=True,
  ),
  "compare": Case(
    ("--questions=6", "--batch_size=3", "--keep_ratio=0.4", "--selector=random"),
    file_digests(*(name for name in compare.RESULTS if name.endswith((".csv", ".png")) and name not in compare.TIMES)),
    resumes=True,
  ),
  "study": Case(
    ("--examples=2", "--questions=6", "--keep_ratio=0.4"),
    file_digests(*(f"results/*/{name}" for name in study.RESULTS if name.endswith(".json"))),
    resumes=True,
  ),
  "generate": Case(("--max_new_tokens=4",), file_digests("kept_tokens.png")),
  "accuracy": Case(("--questions=6", "--keep_ratio=0.4"), file_digests("accuracy.json")),
  "benchmark": Case((f"--model={MODEL}", "--side=112", "--rounds=1", "--steps=2", "--keep_ratio=0.4"), file_digests("none")),
  "digits_benchmark": Case(("--questions=20", "--clips=2"), file_digests("**/*")),
}
KILLED = ("evaluate", "head_importance", "convert", "train", "sweep")


def _child(name: str, arguments: list[str], output: str) -> None:
  """Runs a command as from the command line."""
  target = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
  os.dup2(target, 1)
  os.dup2(target, 2)
  command = importlib.import_module(f"experiments.{name}")
  sys.argv = [name, *arguments]
  with small_training.architecture():
    command.command.main(command.Settings, command.run)


class Runner:
  """Starts commands in processes that have everything imported, and counts failures.

  Attributes:
    root: directory for everything.
    failures: descriptions.
  """

  def __init__(self, root: pathlib.Path):
    self.root, self.failures = root, []
    os.environ |= {
      "JAX_PLATFORMS": "cpu",
      "JAX_COMPILATION_CACHE_DIR": str(root / "cache"),
      "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    self._context = multiprocessing.get_context("forkserver")
    self._context.set_forkserver_preload([f"experiments.{name}" for name in CASES])

  def start(self, name: str, directory: pathlib.Path) -> multiprocessing.Process:
    """The process of a case, whose output goes to `log(directory)`."""
    arguments = [*CASES[name].arguments, f"--output_dir={directory}"]
    if name == "study":
      arguments.append(f"--results_dir={directory}/results")
    process = self._context.Process(target=_child, args=(name, arguments, str(self.log(directory))))
    process.start()
    return process

  def run(self, name: str, directory: pathlib.Path) -> tuple[int, str]:
    """Exit status and output of a case."""
    process = self.start(name, directory)
    process.join()
    return process.exitcode, self.log(directory).read_text()

  def log(self, directory: pathlib.Path) -> pathlib.Path:
    """Where the output goes: not into the directory, whose disk may be full."""
    return self.root / (digest(str(directory).encode())[:8] + ".log")

  def expect(self, right: bool, name: str, what: str, output: str = "") -> None:
    """Notes a failure unless something is right."""
    if not right:
      self.failures.append(f"{name}: {what}")
      print(f"FAILED {name}: {what}\n{output[-4000:]}", flush=True)

  def whole(self, name: str) -> tuple[dict[str, str], float, int]:
    """Digests, seconds and bytes of an undisturbed run, for which everything has been compiled before."""
    for directory in (self.root / f"{name}-warm", self.root / f"{name}-whole"):
      began = time.perf_counter()
      status, output = self.run(name, directory)
      self.expect(status == 0, name, f"undisturbed, status {status}", output)
    seconds = time.perf_counter() - began
    size = sum(path.stat().st_blocks * 512 for path in directory.rglob("*"))
    return CASES[name].digests(directory), seconds, size

  def ended(self, name: str, directory: pathlib.Path, whole: dict[str, str], status: int, output: str) -> None:
    """Checks a run that was disturbed before, and removes its files."""
    self.expect(status == 0, name, f"resumed, status {status}", output)
    if status == 0:
      found = CASES[name].digests(directory)
      differ = sorted(file for file in {*found, *whole} if found.get(file) != whole.get(file))
      self.expect(not differ, name, f"differs from the undisturbed run in {', '.join(differ)}")
      left = [str(path.relative_to(directory)) for path in directory.rglob("*.partial")]
      self.expect(not left, name, f"left {', '.join(left)}")


def records(directory: pathlib.Path) -> dict[str, bytes]:
  """The complete lines of all journals below a directory, or below the one in which a conversion is at work."""
  found = {}
  for place in (directory, directory.with_name(directory.name + ".partial")):
    for path in place.rglob("*.jsonl"):
      if path.name not in ("metrics.jsonl", "seconds.jsonl", "predictions.jsonl"):
        content = path.read_bytes()
        found[str(path.relative_to(place))] = content[: content.rfind(b"\n") + 1]
  return found


def check_kept(runner: Runner, name: str, before: dict[str, bytes], directory: pathlib.Path) -> None:
  """No record that was there before has gone."""
  now = records(directory)
  lost = [path for path, content in before.items() if not now.get(path, b"").startswith(content)]
  runner.expect(not lost, name, f"lost records of {', '.join(lost)}")


def kills(runner: Runner, name: str, times: int, rng: random.Random) -> str:
  """Kills a case at random moments; each time the same command resumes."""
  whole, seconds, _ = runner.whole(name)
  killed = finished = 0
  moments, directory = [], runner.root / f"{name}-0"
  while killed < times:
    before, moment = records(directory), rng.uniform(0, seconds)
    process = runner.start(name, directory)
    process.join(moment)
    if process.exitcode is None:
      process.kill()
      process.join()
    check_kept(runner, name, before, directory)
    if process.exitcode == -signal.SIGKILL:
      killed += 1
      moments.append(moment)
    else:
      runner.ended(name, directory, whole, process.exitcode, runner.log(directory).read_text())
      finished += 1
      directory = runner.root / f"{name}-{finished}"
  runner.ended(name, directory, whole, *runner.run(name, directory))
  return (
    f"{killed} kills between {min(moments):.2f} and {max(moments):.2f} s of runs of {seconds:.1f} s, "
    f"{finished + 1} runs ended with the same bytes as undisturbed ({len(whole)} files or parameters)"
  )


def disks(runner: Runner, name: str, times: int, rng: random.Random) -> str:
  """Runs a case on ever larger disks, from one that holds nothing to one that holds everything."""
  whole, _, size = runner.whole(name)
  disk = runner.root / f"{name}-disk"
  disk.mkdir()
  refused = 0
  mount = lambda options: subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(disk)], check=True)
  mount("size=4k")
  try:
    directory = disk / "out"
    shares = [0.0, *sorted(rng.uniform(0, 1) for _ in range(times - 1))]
    for share in shares:
      before = records(directory)
      mount(f"remount,size={4096 + int(share * size)}")
      status, output = runner.run(name, directory)
      check_kept(runner, name, before, directory)
      if status:
        refused += 1
        last = output.replace("\r", "\n").strip().splitlines()[-1]
        right = (
          status == 2 and last.startswith("error: ") and "No space left on device" in last and "Traceback" not in output
        )
        runner.expect(right, name, f"disk of {share:.0%}, status {status}", output)
    mount(f"remount,size={4 * size + (64 << 20)}")
    runner.ended(name, directory, whole, *runner.run(name, directory))
  finally:
    subprocess.run(["umount", str(disk)], check=True)
  return f"{refused} of {times} disks below {size / 1e6:.2f} MB were full; on a larger one it ended as undisturbed"


def pairs(runner: Runner, name: str, times: int, rng: random.Random) -> str:
  """Starts a case twice at once; one is refused, the other ends as undisturbed."""
  whole, _, _ = runner.whole(name)
  for number in range(times):
    directory = runner.root / f"{name}-pair{number}"
    # The same directory under two names, so that each has a log of its own.
    both = [directory, runner.root / ".." / runner.root.name / directory.name]
    processes = []
    for place in both:
      processes.append(runner.start(name, place))
      time.sleep(rng.uniform(0, 0.2))
    for process in processes:
      process.join()
    statuses = [process.exitcode for process in processes]
    outputs = [runner.log(place).read_text() for place in both]
    runner.expect(sorted(statuses) == [0, 2], name, f"two at once end with {statuses}", "\n".join(outputs))
    if sorted(statuses) == [0, 2]:
      said = outputs[statuses.index(2)].strip()
      lines = [line for line in said.splitlines() if not line.startswith("== ")]  # headings of a sweep's points
      runner.expect(len(lines) == 1 and "another run is" in said, name, "the second says", said)
      runner.ended(name, directory, whole, 0, "")
  return f"{times} times two at once: one was refused in one line, the other ended as undisturbed"


def main() -> None:
  """Runs the checks that the command line names."""
  parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  checks = {"kills": (kills, KILLED), "disks": (disks, (*CASES,)), "pairs": (pairs, KILLED)}
  parser.add_argument("check", choices=checks)
  parser.add_argument("--times", type=int, default=4, help="How often per command.")
  parser.add_argument("--case", choices=CASES, action="append", help="Which command; by default all that the check is for.")
  parser.add_argument("--seed", type=int, default=0, help="Of the random moments and sizes.")
  arguments = parser.parse_args()
  check, names = checks[arguments.check]
  with tempfile.TemporaryDirectory() as root:
    runner = Runner(pathlib.Path(root).resolve())
    for name in arguments.case or names:
      began = time.perf_counter()
      summary = check(runner, name, arguments.times, random.Random(f"{arguments.seed} {name}"))
      print(f"{name}: {summary} ({time.perf_counter() - began:.0f} s)", flush=True)
  print(f"{len(runner.failures)} failures")
  sys.exit(1 if runner.failures else 0)


if __name__ == "__main__":
  main()
