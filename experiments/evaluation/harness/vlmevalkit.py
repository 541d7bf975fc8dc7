"""Pruned models in VLMEvalKit, through its own command line:

  python -m experiments.evaluation.harness.vlmevalkit --config=config.json --work-dir=out/vlmevalkit

where the configuration names the class `Hawk` and the arguments of `pruned_model.PrunedModel`:

  {"model": {"hawk-0.2": {"class": "Hawk", "model": "DIRECTORY", "keep_ratio": 0.2}},
   "data": {"MME": {"class": "ImageYORNDataset", "dataset": "MME"}}}

docs/examples/vlmevalkit.json is one for digits.tsv; docs/evaluation.md says where the file must be. Needs VLMEvalKit
(requirements-harness.txt).
"""

from __future__ import annotations

import runpy
import sys

from experiments.evaluation.harness.pruned_model import PrunedModel

try:
  import vlmeval.vlm
  from vlmeval.vlm.base import BaseModel
except ModuleNotFoundError as error:
  sys.exit(f"error: {error}; requirements-harness.txt says how to install it")


class Hawk(BaseModel):
  """A model for VLMEvalKit."""

  INTERLEAVE = True
  VIDEO_LLM = True

  def __init__(self, **settings):
    """Loads the model.

    Args:
      **settings: of `PrunedModel`.
    """
    super().__init__()
    self._pruned = PrunedModel(**settings)

  def generate_inner(self, message, dataset=None):
    """The answer to a question of pictures, videos and texts in their order; VLMEvalKit asks one question at a time."""
    del dataset
    return self._pruned.answer([message])[0]


if __name__ == "__main__":
  vlmeval.vlm.Hawk = Hawk
  runpy.run_module("vlmeval.run", run_name="__main__", alter_sys=True)
