"""Checks of single arguments: every message names the argument, what was given and what is allowed."""

from __future__ import annotations

from collections.abc import Iterable
import errno
import math
import numbers
import os
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np

INT32_MAX = 2**31 - 1
_SHOWN = 80  # characters of a value in a message


def show(value: Any) -> str:
  """A value as one short line, for a message."""
  try:
    text = " ".join(repr(value).split())
  except ValueError:  # Python refuses to print whole numbers of thousands of digits
    return f"a very large {type(value).__name__}"
  return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def regular_file(path: str | os.PathLike) -> None:
  """Refuses devices and pipes, of which there may be no end, or no beginning.

  Raises:
    OSError: there is one at the path.
  """
  if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def read_file(path: str | os.PathLike) -> str:
  """The text of a regular file.

  Raises:
    OSError: it cannot be read, or is a device or a pipe.
    ValueError: its bytes are not UTF-8 text.
  """
  regular_file(path)
  return pathlib.Path(path).read_text("utf-8")


def whole(name: str, value: Any, least: int = 0, most: int | None = None) -> int:
  """A whole number within bounds, as an int; booleans and floats are refused.

  Raises:
    ValueError: another type, or out of bounds.
  """
  allowed = f"a whole number of at least {least}" if most is None else f"a whole number from {least} to {most}"
  is_whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
  if not is_whole or int(value) < least or (most is not None and int(value) > most):
    raise ValueError(f"{name}: got {show(value)}, must be {allowed}")
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
    raise ValueError(f"{name}: got {show(value)}, must be {allowed}")
  try:
    number = float(value)
  except OverflowError:
    number = math.inf
  if not math.isfinite(number) or not least <= number <= most:
    raise ValueError(f"{name}: got {show(value)}, must be {allowed}")
  return number


def share(name: str, value: Any) -> float:
  """A number in (0, 1].

  Raises:
    ValueError: anything else.
  """
  number = real(name, value, "in (0, 1]", 0.0, 1.0)
  if number == 0.0:
    raise ValueError(f"{name}: got {show(value)}, must be in (0, 1]")
  return number


def choice(name: str, value: Any, allowed: Iterable[str]) -> str:
  """One of several names.

  Raises:
    ValueError: anything else.
  """
  allowed = tuple(allowed)
  if not isinstance(value, str) or value not in allowed:
    raise ValueError(f"{name}: got {show(value)}, allowed are {', '.join(allowed)}")
  return value


def flag(name: str, value: Any) -> bool:
  """True or False.

  Raises:
    ValueError: anything else.
  """
  if not isinstance(value, bool):
    raise ValueError(f"{name}: got {show(value)}, must be True or False")
  return value


def whole_array(name: str, values: Any, allowed: str) -> np.ndarray:
  """An array of whole numbers, of any integer type.

  Args:
    name: of the argument.
    values: of the argument.
    allowed: what is allowed, in words.

  Raises:
    ValueError: no array, or one of booleans, floats or anything else.
  """
  return _array(name, values, allowed, (jnp.integer,))


def real_array(name: str, values: Any, allowed: str) -> np.ndarray:
  """An array of real numbers, of any integer or float type; as `whole_array`."""
  return _array(name, values, allowed, (jnp.integer, jnp.floating))


def mask(name: str, values: Any, allowed: str) -> np.ndarray:
  """An array of 0 and 1, or False and True, of any real type, as bool; otherwise as `whole_array`."""
  array = _array(name, values, allowed, (jnp.integer, jnp.floating, jnp.bool_))
  ones = array == 1
  if not (ones | (array == 0)).all():
    raise ValueError(f"{name}: holds other values than 0 and 1, must be {allowed}")
  return ones


def _array(name, values, allowed, kinds) -> np.ndarray:
  try:
    array = np.asarray(values)
  except (TypeError, ValueError) as error:  # rows of several lengths, and the like
    raise ValueError(f"{name}: got {show(values)}, must be {allowed}") from error
  if not any(jnp.issubdtype(array.dtype, kind) for kind in kinds):
    raise ValueError(f"{name}: got {array.dtype} of shape {array.shape}, must be {allowed}")
  return array
