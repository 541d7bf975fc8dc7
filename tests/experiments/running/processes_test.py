"""Platforms, and several processes of which one dies."""

import os
import pathlib
import socket
import subprocess
import sys
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from experiments.running import processes

ROOT = pathlib.Path(__file__).parents[3]
# Prints a line once all processes are connected, and then waits.
PROCESS = """
import sys, time
from experiments.running import processes

address, number, action = sys.argv[1:]
options = processes.Options(
  distributed=True, coordinator_address=address, num_processes=2, process_id=int(number), heartbeat_seconds=10
)
processes.join(options)
print("connected", flush=True)
if action == "fail":
  processes.leave("error: on purpose", 2)
time.sleep(100)
"""


class ProcessesTest(parameterized.TestCase):
  def start(self, *actions):
    with socket.socket() as free:
      free.bind(("127.0.0.1", 0))
      address = f"127.0.0.1:{free.getsockname()[1]}"
    started = [
      subprocess.Popen(
        [sys.executable, "-c", PROCESS, address, str(number), action],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "4", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
      )
      for number, action in enumerate(actions)
    ]
    for process in started:
      self.addCleanup(process.communicate)
      self.addCleanup(process.kill)
    return started

  def test_a_dead_process_ends_the_others_with_a_line(self):
    for kill, actions in ((True, ("wait", "wait")), (False, ("fail", "wait"))):
      first, second = self.start(*actions)
      self.assertEqual([first.stdout.readline(), second.stdout.readline()], ["connected\n"] * 2)
      if kill:
        first.kill()
      output, errors = second.communicate()
      self.assertEqual((second.returncode, output), (1, ""), errors)
      self.assertRegex(errors, r"^\nerror: another process of this run has died or cannot be reached; .*\n$")
      self.assertEqual(first.wait(), -9 if kill else 2)

  def test_quiet_logs_need_a_new_start(self):
    arguments = ["python", "-m", "experiments.evaluate", "--distributed"]
    with (
      mock.patch.multiple(processes.sys, orig_argv=arguments, executable="/python"),
      mock.patch.object(os, "execve") as new,
    ):
      for level, starts in (("0", 0), ("4", 0), ("1", 1)):  # JAX sets 1 where the user has set nothing
        with mock.patch.dict(os.environ, TF_CPP_MIN_LOG_LEVEL=level), mock.patch.object(processes.ctypes, "CDLL"):
          processes._report_the_death_of_others()
        self.assertEqual(new.call_count, starts)
    self.assertEqual(new.call_args.args[:2], ("/python", arguments))
    self.assertEqual(new.call_args.args[2]["TF_CPP_MIN_LOG_LEVEL"], "4")

  @parameterized.parameters(
    (None, ("libtpu",), "cpu"),  # as requirements-tpu.txt leaves a machine without TPUs
    (None, (), None),
    (None, ("libtpu", "jax_plugins"), None),
    ("tpu,cpu", ("libtpu",), None),  # as JAX leaves a machine with TPUs
    ("", ("libtpu",), None),
  )
  def test_libtpu_is_left_alone_where_there_is_no_tpu(self, platforms, installed, chosen):
    config = mock.Mock(jax_platforms=platforms)
    find_spec = lambda name: name if name in installed else None
    with mock.patch.object(processes.jax, "config", config), mock.patch.object(processes, "find_spec", find_spec):
      processes.join(processes.Options())
    self.assertEqual(config.update.call_args_list, [mock.call("jax_platforms", chosen)] if chosen else [])

  @parameterized.parameters(
    (dict(num_processes=2), "distributed: coordinator_address, num_processes and process_id need it"),
    (dict(distributed=True, num_processes=2), "distributed: give all of coordinator_address"),
    (
      dict(distributed=True, coordinator_address="a:1", num_processes=2, process_id=2),
      "process_id: got 2, must be below num_processes, 2",
    ),
  )
  def test_flags_that_contradict_each_other(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      processes.join(processes.Options(**options))


if __name__ == "__main__":
  absltest.main()
