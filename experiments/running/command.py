"""Commands: a frozen dataclass of settings, and a function `run(settings)`.

  @dataclasses.dataclass(frozen=True, kw_only=True)
  class Settings(command.Settings):
    model: str = command.option("DIRECTORY", "Checkpoint directory or hub id.")

  def run(settings: Settings):
    ...

  if __name__ == "__main__":
    command.main(Settings, run)

Flags are defined only in a module that runs as a command, so that all commands can be imported and called in one process.
Settings check themselves, whether they come from flags, from a config file (`configs`) or from Python.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses
import logging
import signal
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging as absl_logging

from experiments.running import compilation_cache
from experiments.running import configs
from experiments.running import processes
from experiments.running import remote
from experiments.running import settings as settings_lib
from experiments.running.settings import option

__all__ = ["MeshSettings", "Settings", "main", "option"]

_DEFINE = {str: flags.DEFINE_string, int: flags.DEFINE_integer, float: flags.DEFINE_float, bool: flags.DEFINE_bool}
_WORDS = {str: "text", int: "a whole number", float: "a number", bool: "True or False"}
_DEFINE_MULTI = {str: flags.DEFINE_multi_string, int: flags.DEFINE_multi_integer, float: flags.DEFINE_multi_float}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings_lib.Checked):
  """Settings of every command."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings(Settings):
  """Settings of commands that spread a model over devices."""

  mesh: str | None = option(
    None,
    "How models are spread over devices, such as data:2,fsdp:2,tensor:2. By default all "
    "devices are used, up to 4 of them on tensor and the rest on fsdp.",
  )


def _parse_flags(argv: list[str]) -> list[str]:
  """As absl does, except that --help is a success."""
  try:
    return app.parse_flags_with_usage(argv)
  except SystemExit as end:
    if isinstance(end.__context__, flags.Error):
      raise
    sys.exit(0)


def main(kind: type[Settings], run: Callable[[Any], Any]) -> None:
  """Runs a command with settings from the command line.

  A ValueError or OSError is printed as one line without traceback, and ends the process with status 2; so does Ctrl-C, with
  status 130.

  Args:
    kind: the class of the settings.
    run: the command.
  """
  for each in (kind, processes.Options):
    define_flags(each)
  # `experiments.sweep` has a config of its own, whose values are another command's but for those of the process.
  own_config = "config" in names_of(kind)
  if not own_config:
    flags.DEFINE_string("config", None, configs.HELP, module_name=sys.argv[0])

  def parsed(argv):
    if len(argv) > 1:
      raise app.UsageError(f"unknown arguments: {' '.join(argv[1:])}")
    _quieten_libraries()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # see experiments/__init__.py
    try:
      config = configs.load(flags.FLAGS.config, None if own_config else [*names_of(kind), *names_of(processes.Options)])
      options = read_flags(processes.Options, config=config.values)
      settings = read_flags(kind, config=None if own_config else config.values)
      if options.compilation_cache:
        compilation_cache.keep(options.compilation_cache)
      processes.join(options)
      with processes.only_first_prints():
        run(settings if own_config else remote.fetched(settings))
        remote.close_all()
    except KeyboardInterrupt as interruption:
      processes.leave(f"interrupted; {interruption}" if str(interruption) else "interrupted", 130)
    except (ValueError, OSError) as error:
      if flags.FLAGS.pdb or flags.FLAGS.pdb_post_mortem:
        raise
      processes.leave(f"error: {error}", 2)

  app.run(parsed, flags_parser=_parse_flags)


def _quieten_libraries() -> None:
  logging.getLogger("jax").setLevel(logging.WARNING)  # it reports every backend that it does not find
  if not flags.FLAGS["verbosity"].present:
    absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax reports every file
  # Orbax logs the traceback of each failure that it raises too.
  absl_logging.get_absl_handler().addFilter(lambda record: "orbax" not in record.pathname)


def define_flags(kind: type[settings_lib.Checked], values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines a flag for every field of a class of settings.

  Args:
    kind: the class.
    values: where the flags are defined.
  """
  for field in dataclasses.fields(kind):
    what, repeated, _ = settings_lib.types_of(kind)[field.name]
    choices = settings_lib.choices_of(field)
    default = list(field.default) if repeated else field.default
    # --help lists the flags of the module with this name.
    arguments = dict(
      name=field.name, default=default, help=field.metadata["help"], flag_values=values, module_name=sys.argv[0]
    )
    if choices:
      (flags.DEFINE_multi_enum if repeated else flags.DEFINE_enum)(enum_values=choices, **arguments)
    else:
      (_DEFINE_MULTI if repeated else _DEFINE)[what](**arguments)
    values[field.name].help = field.metadata["help"]  # absl adds that a flag may be repeated, which ours says


def read_flags(
  kind: type[settings_lib.Checked], values: flags.FlagValues = flags.FLAGS, config: Mapping[str, Any] | None = None
) -> Any:
  """Settings from the flags of `define_flags`, which have been parsed.

  Args:
    kind: the class of the settings.
    values: where the flags are defined.
    config: values for flags that were not given.

  Raises:
    ValueError: a setting that is not allowed, or of the wrong type in `config`, by name.
  """
  config, found = config or {}, {}
  for field in dataclasses.fields(kind):
    flag = values[field.name]
    if field.name in config and not flag.present:
      found[field.name] = _typed(kind, field, config[field.name])
    else:
      found[field.name] = tuple(flag.value) if isinstance(flag.value, list) else flag.value
  return kind(**found)


def names_of(kind: type[settings_lib.Checked]) -> list[str]:
  """Names of the settings of a class."""
  return [field.name for field in dataclasses.fields(kind)]


def _typed(kind: type[settings_lib.Checked], field: dataclasses.Field, value: Any) -> Any:
  """A value of a config file as a field's type; one value stands for a list of one where a flag may be repeated.

  Raises:
    ValueError: a value of another type.
  """
  what, repeated, optional = settings_lib.types_of(kind)[field.name]
  several = repeated and isinstance(value, (list, tuple))
  if value is None and optional:
    return None
  for one in value if several else (value,):
    fits = isinstance(one, (int, float) if what is float else what) and (what is bool or not isinstance(one, bool))
    if not fits:
      allowed = _WORDS[what] + (", or a list of such" if repeated else " or None" if optional else "")
      raise ValueError(f"{field.name}: got {one!r} in the config, must be {allowed}")
  convert = float if what is float else lambda one: one
  return tuple(map(convert, value if several else (value,))) if repeated else convert(value)
