"""The ladder of static sizes: many input sizes compile few shapes."""

from __future__ import annotations

STEPS_PER_OCTAVE = 8


def bucket(size: int, minimum: int = 16) -> int:
  """The smallest rung that holds `size`: 0, `minimum`, then eight rungs per octave (16, 18, 20, ..., 32, 36, ...).

  A rung is at most 12.5 % above the one below it, so padding adds at most that much and about half of it on average.

  Args:
    size: what must fit, at least 0. 0 is a rung of its own, for which nothing is computed.
    minimum: the lowest rung above 0.
  """
  if size <= 0:
    return 0
  if size <= minimum:
    return minimum
  step = 1
  while size > 2 * STEPS_PER_OCTAVE * step:
    step *= 2
  return -(-size // step) * step
