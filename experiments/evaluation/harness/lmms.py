"""Pruned models in lmms-eval, through its own command line:

  python -m experiments.evaluation.harness.lmms --model=hawk --model_args=model=DIRECTORY,keep_ratio=0.2 --tasks=mme \
      --batch_size=8

`--model_args` are the arguments of `pruned_model.PrunedModel`. Needs lmms-eval (requirements-harness.txt).
"""

from __future__ import annotations

import itertools
import mimetypes
import sys

import tqdm

from experiments.evaluation.harness.pruned_model import PrunedModel

try:
  from lmms_eval import __main__ as lmms_main
  from lmms_eval import models as lmms_models
  from lmms_eval.api.model import lmms
  from lmms_eval.models.registry_v2 import ModelManifest
except ModuleNotFoundError as error:
  sys.exit(f"error: {error}; requirements-harness.txt says how to install it")


class Hawk(lmms):
  """A model for lmms-eval."""

  def __init__(self, batch_size: int = 1, device: str | None = None, max_batch_size: int | None = None, **settings):
    """Loads the model.

    Args:
      batch_size: questions per batch.
      device: torch device that lmms-eval passes; not used.
      max_batch_size: limit that lmms-eval passes to models that search for their batch size; not used.
      **settings: of `PrunedModel`.
    """
    del device, max_batch_size
    super().__init__()
    self._batch_size = int(batch_size)
    self._pruned = PrunedModel(**settings)

  def generate_until(self, requests):
    """Answers in the order of the requests; requests with the same answer length share batches."""
    answers = {}
    length = lambda at: requests[at].args[1].get("max_new_tokens") or 0
    with tqdm.tqdm(total=len(requests), unit="question") as progress:
      for tokens, group in itertools.groupby(sorted(range(len(requests)), key=length), key=length):
        group = list(group)
        for start in range(0, len(group), self._batch_size):
          batch = group[start : start + self._batch_size]
          questions = [self._question(requests[at]) for at in batch]
          for at, text in zip(batch, self._pruned.answer(questions, tokens or None)):
            answers[at] = self._until(requests[at], text)
          progress.update(len(batch))
    return [answers[at] for at in range(len(requests))]

  def _question(self, request):
    context, settings, doc_to_visual, number, task, split = request.args
    if settings.get("do_sample"):
      raise ValueError(f"do_sample: {task} asks for sampled answers; these are greedy")
    shown = [{"type": _kind(visual), "value": visual} for visual in doc_to_visual(self.task_dict[task][split][number])]
    return [*shown, {"type": "text", "value": context}]

  def _until(self, request, text):
    """The text before the first of the strings that end an answer."""
    ends = request.args[1].get("until") or []
    for end in [ends] if isinstance(ends, str) else ends:
      text = text.split(end)[0]
    self.cache_hook.add_partial("generate_until", request.args[:2], text)
    return text

  def generate_until_multi_round(self, requests):
    raise NotImplementedError("hawk answers single questions")

  def loglikelihood(self, requests):
    raise NotImplementedError("hawk generates answers")


def _kind(visual):
  """`image` or `video`, by a path's suffix."""
  guessed = mimetypes.guess_type(visual)[0] if isinstance(visual, str) else None
  return "video" if (guessed or "").startswith("video/") else "image"


if __name__ == "__main__":
  lmms_models.MODEL_REGISTRY_V2.register_manifest(
    ModelManifest(model_id="hawk", simple_class_path="experiments.evaluation.harness.lmms.Hawk"), overwrite=True
  )
  lmms_main.cli_evaluate()
