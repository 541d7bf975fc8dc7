"""Settings: frozen dataclasses whose fields describe themselves, so that flags can be made of them, and check themselves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
import dataclasses
from typing import Any

from hawk_jax import checks


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked:
  """Settings whose fields are made by `option`."""

  def __post_init__(self):
    """Checks choices and bounds.

    Raises:
      ValueError: a setting that is not allowed, by name.
    """
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      for one in value if isinstance(value, tuple) else (value,):
        self._check(field, one)

  def _check(self, field, value):
    if value is None:
      return
    if allowed := choices_of(field):
      checks.choice(field.name, value, allowed)
    least = field.metadata["least"]
    if least is not None and not value >= least:
      raise ValueError(f"{field.name}: got {value!r}, must be at least {least}")
