"""Settings: frozen dataclasses whose fields describe themselves, so that flags can be made of them, and check themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
import functools
import math
import os
import re
import types
import typing
from typing import Any, NamedTuple

from hawk_jax import checks


def _is_text(value: Any) -> bool:
  """Whether it is a string that can be written into a report: half a character (surrogate) cannot."""
  return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


def _as_text(value: Any) -> Any:
  return os.fspath(value) if isinstance(value, os.PathLike) else value


def _is_whole(value: Any) -> bool:
  return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= checks.INT32_MAX


# For each type of field, which values it takes, and what to say of others.
_ACCEPTED: dict[type, tuple[Callable[[Any], bool], str]] = {
  str: (_is_text, "text"),
  bool: (lambda value: isinstance(value, bool), "True or False"),
  int: (_is_whole, f"a whole number of at most {checks.INT32_MAX}"),
  float: (lambda value: isinstance(value, float) or _is_whole(value), "a number"),
}


def option(
  default: Any, help: str, *, choices: Callable[[], Iterable[str]] | Iterable[str] | None = None, least: float | None = None
) -> Any:
  """A field of settings.

  Args:
    default: its default; a tuple for a flag that may be repeated.
    help: one sentence for `--help`.
    choices: the allowed strings, or a function that returns them if they come from a table that may grow.
    least: the lowest number that is allowed.
  """
  return dataclasses.field(default=default, metadata={"help": help, "choices": choices, "least": least})


def choices_of(field: dataclasses.Field) -> list[str] | None:
  """The allowed strings of a field, or None."""
  choices = field.metadata["choices"]
  return list(choices() if callable(choices) else choices) if choices else None


class Type(NamedTuple):
  """What a field holds.

  Attributes:
    kind: str, int, float or bool.
    repeated: whether it is a tuple of them.
    optional: whether it may be None instead.
  """

  kind: type
  repeated: bool
  optional: bool


@functools.cache
def types_of(kind: type[Checked]) -> dict[str, Type]:
  """The type of each field, from its annotation."""
  found = {}
  for name, hint in typing.get_type_hints(kind).items():
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    inner = next(part for part in parts if part is not type(None))
    repeated = typing.get_origin(inner) is tuple
    found[name] = Type(typing.get_args(inner)[0] if repeated else inner, repeated, type(None) in parts)
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
  """Settings whose fields are made by `option`."""

  def __post_init__(self):
    """Checks types, choices and bounds; a path becomes text.

    Raises:
      ValueError: a setting that is not allowed, by name.
    """
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      kind, repeated, optional = types_of(type(self))[field.name]
      if repeated and not isinstance(value, tuple):
        raise ValueError(f"{field.name}: got {checks.show(value)}, must be a tuple")
      if kind is str:
        value = tuple(map(_as_text, value)) if isinstance(value, tuple) else _as_text(value)
        object.__setattr__(self, field.name, value)
      if not (value is None and optional):
        for one in value if repeated else (value,):
          _check(field, kind, one)


def _check(field: dataclasses.Field, kind: type, value: Any) -> None:
  """Checks one value of a field."""
  accepts, allowed = _ACCEPTED[kind]
  if not accepts(value):
    raise ValueError(f"{field.name}: got {checks.show(value)}, must be {allowed}")
  if choices := choices_of(field):
    checks.choice(field.name, value, choices)
  least = field.metadata["least"]
  if least is not None and not value >= least:
    raise ValueError(f"{field.name}: got {checks.show(value)}, must be at least {least}")
  if kind is float and not math.isfinite(value):
    raise ValueError(f"{field.name}: got {checks.show(value)}, must be finite")
