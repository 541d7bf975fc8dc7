"""Config files: `--config=experiments/configs/qwen7b.py:native,keep=0.2`, with flags that are given explicitly on top.

A config file is Python, read by `ml_collections.config_flags`. Its `get_config`, which gets what follows the colon (if
anything does), returns a `ConfigDict` (or a dict) whose keys are flags of the command. Its `get_hyper`, if there is one,
says what `experiments.sweep` varies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
import dataclasses
import difflib
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

from experiments.running import remote

HELP = "Config file, FILE.py or FILE.py:ARGUMENTS, with values for flags that are not given."


@dataclasses.dataclass(frozen=True)
class Config:
  """What a config file says.

  Attributes:
    values: by the name of the flag.
    hyper: what its `get_hyper` returns; None without one.
  """

  values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  hyper: Any = None


def load(source: str | None, allowed: Iterable[str] | None) -> Config:
  """Reads a config file.

  Args:
    source: FILE.py or FILE.py:ARGUMENTS; None: an empty config.
    allowed: the keys that it may have; None: any.

  Raises:
    ValueError: a file that cannot be read, arguments that it refuses, or an unknown key.
  """
  if not source:
    return Config()
  source = _local(source)
  path, *arguments = source.split(":", 1)
  if not pathlib.Path(path).is_file():
    raise ValueError(f"config: there is no file {path}")
  values = flags.FlagValues()
  config_flags.DEFINE_config_file("config", None, HELP, values, sys_argv=[])
  try:
    values(["", f"--config={source}"])
  except flags.IllegalFlagValueError as error:
    cause: BaseException = error
    while cause.__context__ is not None:  # config_flags and absl each wrap the file's own error in another
      cause = cause.__context__
    raise ValueError(f"config: {cause}") from error
  except Exception as error:  # the file is Python, and may fail in any way
    raise ValueError(f"config: {path}: {type(error).__name__}: {error}") from error
  content = values["config"].value
  content = content.to_dict() if hasattr(content, "to_dict") else content
  if not isinstance(content, Mapping):
    raise ValueError(f"config: get_config of {path} must return a ConfigDict or a dict, got {type(content).__name__}")
  if allowed is not None:
    check_keys(f"config: {path}", content, allowed)
  module = sys.modules.pop("config_config")  # the name that config_flags gives it; the next file must not find it
  get_hyper = getattr(module, "get_hyper", None)
  return Config(content, get_hyper and get_hyper(*arguments))


def _local(source: str) -> str:
  """The source with a local copy in place of a remote file."""
  if not remote.is_remote(source):
    return source
  scheme, rest = source.split("://", 1)
  path, *arguments = rest.split(":", 1)
  return ":".join([str(remote.fetch("config", f"{scheme}://{path}")), *arguments])


def check_keys(name: str, given: Iterable[str], allowed: Iterable[str]) -> None:
  """Refuses keys that are not allowed.

  Raises:
    ValueError: the first of them, with the most similar allowed key.
  """
  allowed = list(allowed)
  for key in given:
    if key not in allowed:
      similar = difflib.get_close_matches(str(key), allowed, 1)
      hint = f"did you mean {similar[0]}?" if similar else f"allowed are {', '.join(sorted(allowed))}"
      raise ValueError(f"{name}: unknown key {key!r}; {hint}")


def parse_arguments(text: str, **defaults: Any) -> dict[str, Any]:
  """The arguments of a config file: `native,keep=0.2` to {"native": True, "keep": 0.2}.

  Args:
    text: what follows the colon.
    **defaults: the allowed names and their defaults. A value has the type of its default; of False, the name alone means
      True; of None, numbers are numbers and all else is text.

  Raises:
    ValueError: an unknown name, or a value of another type.
  """
  found = dict(defaults)
  for part in filter(None, text.split(",")):
    name, equals, value = part.partition("=")
    check_keys("arguments", [name], defaults)
    default = defaults[name]
    if isinstance(default, bool):
      if equals:
        raise ValueError(f"arguments: {name} takes no value, got {part!r}")
      found[name] = True
      continue
    try:
      found[name] = _literal(value) if default is None else type(default)(value)
    except ValueError as error:
      raise ValueError(f"arguments: {name}: got {value!r}, must be of type {type(default).__name__}") from error
  return found


def _literal(value: str) -> Any:
  try:
    return ast.literal_eval(value)
  except (SyntaxError, ValueError):
    return value
