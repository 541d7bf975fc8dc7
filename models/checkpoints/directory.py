"""Where a checkpoint is, and the JSON files in it."""

from __future__ import annotations

import json
import os
import pathlib
import re
from typing import Any

import huggingface_hub

_FILES = ("*.json", "*.jinja", "*.txt", "*.model", "*.safetensors")


def resolve(path_or_hub_id: str) -> pathlib.Path:
  """The local directory of a checkpoint; a hub id is downloaded, or taken from the local hub cache.

  Raises:
    ValueError: neither a directory nor a hub id that is available.
  """
  path = pathlib.Path(path_or_hub_id)
  if os.path.isdir(path):  # False for names that are too long, too
    return path
  if os.path.exists(path):
    raise ValueError(f"model: {path_or_hub_id} is a file, give the checkpoint's directory or a hub id")
  if not re.fullmatch(r"[\w.-]+/[\w.-]+", path_or_hub_id):
    raise ValueError(f"model: there is no directory {path_or_hub_id!r}, and it is not a hub id (owner/name)")
  try:
    return pathlib.Path(huggingface_hub.snapshot_download(path_or_hub_id, allow_patterns=list(_FILES)))
  except Exception as error:  # the hub client raises many kinds: no network, no such repository, gated, ...
    raise ValueError(
      f"model: there is no directory {path_or_hub_id!r}, and no model of that name could be downloaded "
      f"({type(error).__name__}: {str(error).splitlines()[0]})"
    ) from error


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """A checkpoint's config.json.

  Raises:
    ValueError: missing or not a JSON object.
  """
  path = directory / "config.json"
  if not path.is_file():
    raise ValueError(f"model: {directory} has no config.json")
  try:
    content = json.loads(path.read_text())
  except ValueError as error:
    raise ValueError(f"model: {path} is not JSON ({error})") from error
  if not isinstance(content, dict):
    raise ValueError(f"model: {path} must hold a JSON object")
  return content
