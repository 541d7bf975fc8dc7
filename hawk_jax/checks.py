"""Checks of single arguments: every message names the argument, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
import math
import numbers
from typing import Any

INT32_MAX = 2**31 - 1


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
  """A whole number within bounds, as an int; booleans and floats are refused.

  Raises:
    ValueError: another type, or out of bounds.
  """
  allowed = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
  is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not is_whole or int(value) < least or (most is not None and int(value) > most):
    raise ValueError(f"{name}: got {value!r}, must be {allowed}")
  return int(value)


def real(name: str, value: Any, allowed: str, least: float = -math.inf, most: float = math.inf) -> float:
  """A finite number within bounds, as a float; booleans are refused.

  Args:
    name: name of the argument, for the message.
    value: its value.
    allowed: the allowed values in words, for the message.
    least: lower bound.
    most: upper bound.

  Raises:
    ValueError: another type, not finite, or out of bounds.
  """
  if not isinstance(value, numbers.Real) or isinstance(value, bool):
    raise ValueError(f"{name}: got {value!r}, must be {allowed}")
  try:
    number = float(value)
  except OverflowError:
    number = math.inf
  if not math.isfinite(number) or not least <= number <= most:
    raise ValueError(f"{name}: got {value!r}, must be {allowed}")
  return number


def share(name: str, value: Any) -> float:
  """A number in (0, 1].

  Raises:
    ValueError: anything else.
  """
  number = real(name, value, "in (0, 1]", 0.0, 1.0)
  if number == 0.0:
    raise ValueError(f"{name}: got {value!r}, must be in (0, 1]")
  return number


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
  """One of several names.

  Raises:
    ValueError: anything else.
  """
  allowed = tuple(allowed)
  if not isinstance(value, str) or value not in allowed:
    raise ValueError(f"{name}: got {value!r}, allowed are {', '.join(allowed)}")
  return value


def flag(name: str, value: Any) -> bool:
  """True or False.

  Raises:
    ValueError: anything else.
  """
  if not isinstance(value, bool):
    raise ValueError(f"{name}: got {value!r}, must be True or False")
  return value
