"""Where in a model visual tokens are removed: before the decoder, or after some of its layers.

`hawk_jax.Pruning.stage` names the stage; `prefill` runs it.

Axes: B batch, L tokens of the compacted prompt, D hidden size.
"""

from __future__ import annotations

import jax

from hawk_jax import checks
from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from models.vision_language import Features
from models.vision_language import Prefill
from models.vision_language import VisionLanguageModel


def prefill(
  model: VisionLanguageModel, prompt: prompt_lib.Prompt, features: Features | None, plan: pruning.Plan | None = None
) -> Prefill:
  """Prunes, and runs the decoder over what is left; a method for `model.apply`.

  Args:
    model: a bound port.
    prompt: the language side of a batch.
    features: of `encode`, or None where no prompt has a picture.
    plan: None keeps all.
  """
  if plan is None or features is None:
    return model.run(model.prune(prompt, features), features)
  return STAGES[plan.pruning.stage](model, prompt, features, plan)


def check(settings: pruning.Pruning, num_layers: int) -> None:
  """Refuses settings that need more layers than the decoder has.

  Raises:
    ValueError: prune_layer or score_layer is too large.
  """
  if settings.rule.stage == "decoder":
    checks.whole("prune_layer", settings.prune_layer, 1, num_layers - 1)
  checks.whole("score_layer", settings.score_layer, 0, num_layers - 1)


def _at_input(model, prompt, features, plan) -> Prefill:
  return model.run(model.prune(prompt, features, plan), features)


def _in_decoder(model, prompt, features, plan) -> Prefill:
  """The first L layers process all tokens, the others only those that are kept.

  Removed tokens are removed from the caches of all layers, so that the answer's tokens do not see them in any layer.
  """
  decoder, whole = model.language_model, model.prune(prompt, features)
  score = _by_attention if plan.pruning.rule.stage == "decoder" else _by_layer
  x, scores, early = score(model, prompt, whole, features, plan)
  text, visual = prompt_lib.split(prompt, whole, x)
  if scores is None:
    scores = pruning.score(prompt, text, visual, model.projections(plan.pruning.score_layer), plan)
  sequence = pruning.reduce(prompt, text, visual, scores, plan)

  rows = jax.vmap(lambda values, index: values[index])
  at = prompt_lib.places(whole.order, sequence.order)
  early = [[rows(values, at) for values in each] for each in early]
  x, late = decoder.blocks(
    sequence.embeddings,
    sequence.positions,
    len(early[0]),
    len(decoder.layers),
    last=sequence.lengths - 1,
    deepstack=model.deepstack(sequence, features),
  )
  keys_values = tuple(tuple(first) + second for first, second in zip(early, late))
  return Prefill(last=decoder.norm(x)[:, 0], order=sequence.order, lengths=sequence.lengths, keys_values=keys_values)


def _by_attention(model, prompt, whole, features, plan):
  """FastV (arXiv 2403.06764, the code): L is `prune_layer`.

  A token's score is the attention that it receives from the last token in layer L - 1, averaged over heads.

  Returns:
    [B, L, D] hidden states, [B, V] scores, and the keys and values of the layers that ran.
  """
  decoder, last_layer = model.language_model, plan.pruning.prune_layer - 1
  deepstack = model.deepstack(whole, features)
  x, early = decoder.blocks(whole.embeddings, whole.positions, 0, last_layer, deepstack=deepstack)
  attention = decoder.attention_weights(x, whole.positions, whole.lengths[:, None] - 1, last_layer)
  scores = prompt_lib.split(prompt, whole, attention.mean(axis=1)[:, 0])[1]
  x, scored = decoder.blocks(x, whole.positions, last_layer, last_layer + 1, deepstack=deepstack)
  return x, scores, tuple(first + second for first, second in zip(early, scored))


def _by_layer(model, prompt, whole, features, plan):
  """HAWK's scores by a later layer: L is `score_layer`, whose projections score the hidden states that it gets."""
  deepstack = model.deepstack(whole, features)
  blocks, layers = model.language_model.blocks, plan.pruning.score_layer
  x, early = blocks(whole.embeddings, whole.positions, 0, layers, deepstack=deepstack)
  return x, None, early


STAGES = {"input": _at_input, "decoder": _in_decoder}
