"""The tokenizer of a checkpoint."""

from __future__ import annotations

import pathlib
from typing import Any

import transformers

from models import foreign
from models.checkpoints import directory as directory_lib

_JSON = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json")


def load(directory: pathlib.Path) -> Any:
  """transformers' tokenizer of a checkpoint; code that the checkpoint brings along is not run.

  Raises:
    ValueError: files that are missing or broken.
  """
  for name in _JSON:
    if (directory / name).is_file():
      directory_lib.read_json(directory / name)
  if (directory / "chat_template.jinja").is_file():
    directory_lib.read_text(directory / "chat_template.jinja")  # transformers reads it with the tokenizer
  try:
    return transformers.AutoTokenizer.from_pretrained(directory, trust_remote_code=False, local_files_only=True)
  except Exception as error:  # the tokenizers library raises Exception itself
    if (directory / "tokenizer.json").is_file():
      directory_lib.read_json(directory / "tokenizer.json")  # names the file if it is no JSON
    raise ValueError(f"model: {directory} has no usable tokenizer ({foreign.reason(error)})") from error
