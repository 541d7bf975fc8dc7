"""Commands: a frozen dataclass of settings, and a function `run(settings)`.

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Settings(command.Settings):
    model: str = command.option("DIRECTORY", "Checkpoint directory or hub id.")

  def run(settings: Settings):
    ...

  if __name__ == "__main__":
    command.main(Settings, run)

Flags are made from the fields, and only where a module runs as a command, so that all commands can be imported and called in
one process. Settings check themselves, whether they come from flags or from Python.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import logging
import os
import sys
import types
import typing
from typing import Any

from absl import app
from absl import flags
from absl import logging as absl_logging
import jax

from experiments.running import processes
from experiments.running import settings as settings_lib
from experiments.running.settings import option

__all__ = ["Settings", "main", "option"]

_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}
_DEFINE_MULTI = {str: flags.DEFINE_multi_string, int: flags.DEFINE_multi_integer, float: flags.DEFINE_multi_float}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings_lib.Checked):
  """Settings of every command.

  Attributes:
    mesh: how models are spread over devices.
  """

  mesh: str | None = option(None, "How models are spread over devices, such as data:2,fsdp:2,tensor:2. By default all devices "
                            "are used, up to 4 of them on tensor and the rest on fsdp.")


def main(kind: type[Settings], run: Callable[[Any], Any]) -> None:
  """Makes flags of the fields of `kind`, and runs a command with them.

  A ValueError or OSError is printed without traceback, and ends the command with status 2.

  Args:
    kind: the settings' class.
    run: the command.
  """
  for fields in (kind, processes.Options):
    _define(fields)

  def wrapped(argv):
    if len(argv) > 1:
      raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    logging.getLogger("jax").setLevel(logging.WARNING)  # it reports every backend that it does not find
    if not flags.FLAGS["verbosity"].present:
      absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every file
    try:
      options = _read(processes.Options)
      if options.compilation_cache:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(options.compilation_cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
      settings = _read(kind)
      processes.join(options)
      with processes.only_first_prints():
        run(settings)
    except (ValueError, OSError) as error:
      if flags.FLAGS.pdb or flags.FLAGS.pdb_post_mortem:
        raise
      print(f"error: {error}", file=sys.stderr)
      sys.exit(2)

  app.run(wrapped)


def _define(kind) -> None:
  for field in dataclasses.fields(kind):
    what, many = _type(kind, field)
    choices = settings_lib.choices_of(field)
    text = field.metadata["help"]
    default = list(field.default) if many else field.default
    # With this module name, --help lists the flags as the command's own.
    arguments = dict(default=default, help=text, module_name=sys.argv[0])
    if choices:
      define = flags.DEFINE_multi_enum if many else flags.DEFINE_enum
      define(field.name, enum_values=choices, **arguments)
    else:
      (_DEFINE_MULTI if many else _DEFINE)[what](field.name, **arguments)


def _read(kind):
  value = lambda name: flags.FLAGS[name].value
  return kind(**{field.name: tuple(value(field.name)) if isinstance(field.default, tuple) else value(field.name)
                 for field in dataclasses.fields(kind)})


def _type(kind, field) -> tuple[type, bool]:
  """The type of a flag's values, and whether it may be repeated."""
  hint = typing.get_type_hints(kind)[field.name]
  if isinstance(hint, types.UnionType):
    hint = next(part for part in typing.get_args(hint) if part is not type(None))
  many = typing.get_origin(hint) is tuple
  return (typing.get_args(hint)[0] if many else hint), many
