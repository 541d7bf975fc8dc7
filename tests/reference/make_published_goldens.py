"""Writes published.json: parameters of transformers' model of each published size, and a digest of its tensors.

Needs torch, so it runs in development only: python -m tests.reference.make_published_goldens
"""

from __future__ import annotations

import json

import torch
import transformers

from tests.reference import published
from tests.reference import tiny


def describe(content: dict) -> dict:
  """A size by its config.json; nothing is allocated."""
  config = transformers.AutoConfig.for_model(**content)
  if "tie_word_embeddings" not in content:
    # Where the text config and the top level differ, transformers unties the head once it finds one in a file.
    config.tie_word_embeddings = getattr(config.text_config, "tie_word_embeddings", config.tie_word_embeddings)
  with torch.device("meta"):
    model = transformers.AutoModelForImageTextToText.from_config(config)
  model.tie_weights()
  shapes = {name: value.shape for name, value in model.named_parameters()}
  return {"parameters": sum(shape.numel() for shape in shapes.values()), "tensors": tiny.digest(shapes)}


if __name__ == "__main__":
  goldens = {name: describe(content) for name, content in published.CONFIGS.items()}
  published.GOLDENS.write_text(json.dumps(goldens).replace("}, ", "},\n") + "\n")
