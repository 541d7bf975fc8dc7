"""The ladder of static sizes: many input sizes compile few shapes."""

from __future__ import annotations

STEPS_PER_OCTAVE = 8


def bucket(size: int, minimum: int = 16, steps: int = STEPS_PER_OCTAVE) -> int:
  """The smallest rung that holds `size`: 0, `minimum`, then eight rungs per octave (16, 18, 20, ..., 32, 36, ...).

  A rung is at most 1 / `steps` above the one below it, 12.5 % for eight, so padding adds at most that much and about half of
  it on average.

  Args:
    size: what must fit, at least 0. 0 is a rung of its own, for which nothing is computed.
    minimum: the lowest rung above 0.
    steps: rungs per octave. More of them pad less and compile more shapes.
  """
  if size <= 0:
    return 0
  if size <= minimum:
    return minimum
  step = 1
  while size > 2 * steps * step:
    step *= 2
  return -(-size // step) * step
