"""The ladder of static sizes: many input sizes, few compiled shapes."""

from __future__ import annotations

STEPS_PER_OCTAVE = 8


def bucket(size: int, minimum: int = 16) -> int:
  """Smallest rung that holds `size`: 0, `minimum`, then eight rungs an octave (16, 18, 20, ..., 32, 36, ...).

  A rung is at most 12.5 % above the one below, so padding wastes at most that and about half on average.

  Args:
    size: what must fit, at least 0. 0 is a rung of its own: nothing there, nothing computed.
    minimum: lowest rung above 0.
  """
  if size <= 0:
    return 0
  if size <= minimum:
    return minimum
  step = 1
  while size > 2 * STEPS_PER_OCTAVE * step:
    step *= 2
  return -(-size // step) * step
