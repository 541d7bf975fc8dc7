"""Commands: each file here is one, and the folders hold what commands share."""

import os
import signal
import sys

if sys.argv[0] == "-m":  # python -m experiments.COMMAND, whose imports take seconds in which Ctrl-C interrupts no work

  def _end(*_) -> None:
    os.write(2, b"interrupted\n")
    os._exit(130)

  signal.signal(signal.SIGINT, _end)

import models  # noqa: E402, F401  # before transformers, which it keeps from advising torch
