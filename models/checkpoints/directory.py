"""Where a checkpoint is, and the JSON files in it."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

import huggingface_hub

from hawk_jax import checks
from models import foreign

_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")


def resolve(path_or_hub_id: str | os.PathLike, argument: str = "model") -> pathlib.Path:
  """The local directory of a checkpoint; a hub id is downloaded, or taken from the local hub cache.

  Args:
    path_or_hub_id: of the checkpoint.
    argument: what errors call it.

  Raises:
    ValueError: neither a directory nor a hub id that is available.
    OSError: one of the files is a device or a pipe.
  """
  if not isinstance(path_or_hub_id, (str, os.PathLike)):
    raise ValueError(f"{argument}: got {checks.show(path_or_hub_id)}, must be a checkpoint's directory or a hub id")
  name = os.fspath(path_or_hub_id)
  if os.path.isdir(name):  # False for names that are too long for the file system
    for path in pathlib.Path(name).iterdir():
      if any(path.match(pattern) for pattern in _FILES):
        checks.regular_file(path)  # others than us read some of them: safetensors, tokenizers, transformers
    return pathlib.Path(name)
  if os.path.exists(name):
    raise ValueError(f"{argument}: {name} is a file, give the checkpoint's directory or a hub id")
  if not re.fullmatch(r"[\w.-]{1,96}/[\w.-]{1,96}", name):
    raise ValueError(f"{argument}: there is no directory {name!r}, and it is not a hub id (owner/name)")
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(name, allow_patterns=list(_FILES)))
  except Exception as error:  # the hub client raises many kinds: no network, no such repository, gated, ...
    raise ValueError(
      f"{argument}: there is no directory {name!r}, and no model of that name could be downloaded ({foreign.reason(error)})"
    ) from error


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """A checkpoint's config.json.

  Raises:
    ValueError: missing, not a JSON object, or a part of it is none.
  """
  path = directory / "config.json"
  if not path.is_file():
    raise ValueError(f"model: {directory} has no config.json")
  content = read_json(path)
  for key, value in content.items():
    if key.endswith("_config") and value is not None and not isinstance(value, dict):
      raise ValueError(f"model: {path}: {key}: got {checks.show(value)}, must be an object")
  return content


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file of a checkpoint.

  Raises:
    ValueError: not a JSON object.
    OSError: unreadable.
  """
  text = read_text(path)
  try:
    content = json.loads(text)
  except (ValueError, RecursionError) as error:
    raise ValueError(f"model: {path} is not JSON ({error})") from error
  if not isinstance(content, dict):
    raise ValueError(f"model: {path} must hold a JSON object, got {checks.show(content)}")
  return content


def read_text(path: pathlib.Path) -> str:
  """A text file of a checkpoint.

  Raises:
    ValueError: not text in UTF-8.
    OSError: unreadable.
  """
  try:
    return checks.read_file(path)
  except UnicodeDecodeError as error:
    raise ValueError(f"model: {path} is not text ({error})") from error
