"""Checkpoints of every port without weights: config, tokenizer, chat template and image processor."""

from __future__ import annotations

import functools
import json
import os
import pathlib
import shutil
import tempfile
from typing import Any

from tests.reference import internvl
from tests.reference import llava_onevision
from tests.reference import qwen3_vl

_EMBEDDED = pathlib.Path(__file__).parents[2] / "experiments" / "embedded_models"
PORTS = ("internvl", "llava", "llava_onevision", "qwen2_5_vl", "qwen3_vl")


def content(port: str, file: str) -> dict[str, Any]:
  """The content of a JSON file of `directory`; {} for a file that a port lacks."""
  path = directory(port) / file
  return json.loads(path.read_text()) if path.is_file() else {}


def link(port: str, target: pathlib.Path) -> None:
  """Links the files of `directory` in another one."""
  for file in directory(port).iterdir():
    os.symlink(file, target / file.name)


@functools.cache
def directory(port: str) -> pathlib.Path:
  """A checkpoint's directory; the same one at every call."""
  if (_EMBEDDED / port).is_dir():
    for file in (_EMBEDDED / port).iterdir():
      if file.suffix != ".safetensors":
        shutil.copy(file, _folder(port) / file.name)
    return _folder(port)
  reference, config = {
    "internvl": (internvl, "qwen2"),
    "llava_onevision": (llava_onevision, "untied"),
    "qwen3_vl": (qwen3_vl, "gqa"),
  }[port]
  (_folder(port) / "config.json").write_text(json.dumps(reference.CONFIGS[config]))
  reference.write_processor(_folder(port))
  return _folder(port)


@functools.cache
def _holder() -> tempfile.TemporaryDirectory:
  """Removed when the process ends."""
  return tempfile.TemporaryDirectory()


@functools.cache
def _folder(port) -> pathlib.Path:
  path = pathlib.Path(_holder().name) / port
  path.mkdir()
  return path
