"""Programs that tests start in processes of their own.

They are forked from a process that has imported what they need and nothing else, since importing takes seconds: JAX has not
yet counted devices or started threads there.
"""

from __future__ import annotations

from collections.abc import Mapping
import multiprocessing
import os
import runpy
import sys
import tempfile

_FORKS = multiprocessing.get_context("forkserver")
# A test that may not import the experiments goes without them.
_FORKS.set_forkserver_preload(
  ["tests.reference.mesh_checks", "experiments.evaluate", "experiments.study", "experiments.train"]
)


class Program:
  """`python -m MODULE ARGUMENT ...`, which begins at once, on the CPU."""

  def __init__(self, module: str, *arguments: str, xla_flags: str = "", environment: Mapping[str, str] | None = None):
    """Starts it.

    Args:
      module: its name.
      *arguments: of the command line.
      xla_flags: beside those of this process.
      environment: variables beside those of this process.
    """
    self._output = tempfile.NamedTemporaryFile("r", encoding="utf-8")
    flags = f"{os.environ.get('XLA_FLAGS', '')} {xla_flags}"
    variables = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, **(environment or {})}
    self._process = _FORKS.Process(target=_run, args=(module, arguments, variables, self._output.name))
    self._process.start()

  @property
  def running(self) -> bool:
    return self._process.is_alive()

  def kill(self) -> None:
    """Ends it in the middle of whatever it does."""
    self._process.kill()

  def finish(self) -> tuple[int, str]:
    """Waits for its end; the exit status (less than 0 after a signal), and what it printed."""
    self._process.join(600)
    with self._output:
      return self._process.exitcode, self._output.read()


def run(module: str, *arguments: str, **options) -> str:
  """Runs a program to its end; what it printed.

  Raises:
    AssertionError: it failed.
  """
  return succeeded(Program(module, *arguments, **options))


def succeeded(program: Program) -> str:
  """What a program printed, after its end.

  Raises:
    AssertionError: it failed.
  """
  status, output = program.finish()
  if status:
    raise AssertionError(f"exit status {status}\n{output[-3000:]}")
  return output


def _run(module, arguments, variables, output):
  os.environ.update(variables)
  with open(output, "w") as file:
    for descriptor in (1, 2):
      os.dup2(file.fileno(), descriptor)
  sys.argv = [module, *arguments]
  sys.orig_argv = [sys.executable, "-m", module, *arguments]  # for programs that start themselves anew
  sys.modules.pop(module, None)
  runpy.run_module(module, run_name="__main__", alter_sys=True)
