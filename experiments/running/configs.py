"""Config files: `--config=experiments/configs/qwen7b.py:native,keep=0.2`, with flags that are given explicitly on top.

A config file is Python, read by `ml_collections.config_flags`. Its `get_config`, which gets what follows the colon (if
anything does), returns a `ConfigDict` (or a dict) whose keys are flags of the command. Its `get_hyper`, if there is one,
says what `experiments.sweep` varies.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Mapping
import difflib
import pathlib
import sys
from typing import Any

from absl import flags
from ml_collections import config_flags

_FLAG = "config"


def define(values: flags.FlagValues = flags.FLAGS) -> None:
  """Defines `--config`."""
  config_flags.DEFINE_config_file(
    _FLAG, None, "Config file, FILE.py or FILE.py:ARGUMENTS, with values for flags that are not given.", values
  )
  values.register_key_flag_for_module(sys.argv[0], values[_FLAG])  # so that --help lists it


def read(values: flags.FlagValues = flags.FLAGS, allowed: Iterable[str] = ()) -> dict[str, Any]:
  """The content of `--config`, with the overrides `--config.key=value`; empty without the flag.

  Args:
    values: of `define`, parsed.
    allowed: the keys that it may have.

  Raises:
    ValueError: a file that cannot be read, or an unknown key.
  """
  if values[_FLAG].value is None:
    return {}
  path = config_flags.get_config_filename(values[_FLAG]).partition(":")[0]
  if not pathlib.Path(path).is_file():
    raise ValueError(f"config: there is no file {path}")
  content = values[_FLAG].value
  content = content.to_dict() if hasattr(content, "to_dict") else content
  if not isinstance(content, Mapping):
    raise ValueError(f"config: get_config of {path} must return a ConfigDict or a dict, got {type(content).__name__}")
  check_keys(f"config: {path}", content, allowed)
  return dict(content)


def check_keys(name: str, given: Iterable[str], allowed: Iterable[str]) -> None:
  """Refuses keys that a command does not have.

  Raises:
    ValueError: the first of them, with the most similar allowed key.
  """
  allowed = list(allowed)
  for key in given:
    if key not in allowed:
      similar = difflib.get_close_matches(str(key), allowed, 1)
      hint = f"did you mean {similar[0]}?" if similar else f"allowed are {', '.join(sorted(allowed))}"
      raise ValueError(f"{name}: unknown key {key!r}; {hint}")


def load_hyper(values: flags.FlagValues = flags.FLAGS) -> Any:
  """What `get_hyper` of the config file returns, None if there is none; see `experiments.sweep`."""
  if values[_FLAG].value is None:
    return None
  get_hyper = getattr(sys.modules[f"{_FLAG}_config"], "get_hyper", None)
  arguments = config_flags.get_config_filename(values[_FLAG]).split(":", 1)[1:]
  return get_hyper and get_hyper(*arguments)


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
    check_keys("config arguments", [name], defaults)
    default = defaults[name]
    if isinstance(default, bool):
      if equals:
        raise ValueError(f"config arguments: {name} takes no value, got {part!r}")
      found[name] = True
      continue
    try:
      found[name] = _literal(value) if default is None else type(default)(value)
    except ValueError as error:
      raise ValueError(f"config arguments: {name}: got {value!r}, must be of type {type(default).__name__}") from error
  return found


def _literal(value: str) -> Any:
  try:
    return ast.literal_eval(value)
  except (SyntaxError, ValueError):
    return value
