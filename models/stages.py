"""Where in a model visual tokens are removed: before the decoder, or after some of its layers.

`hawk_jax.selectors.Selector.stage` names the stage; `prefill` runs it.

Axes: B batch, L tokens of the compacted prompt, D hidden size.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

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
  return STAGES[plan.pruning.rule.stage](model, prompt, features, plan)


def check(settings: pruning.Pruning, num_layers: int) -> None:
  """Refuses settings that need more layers than the decoder has.

  Raises:
    ValueError: prune_layer is too large.
  """
  if settings.rule.stage == "decoder":
    checks.whole("prune_layer", settings.prune_layer, 1, num_layers - 1)


def _at_input(model, prompt, features, plan) -> Prefill:
  return model.run(model.prune(prompt, features, plan), features)


def _in_decoder(model, prompt, features, plan) -> Prefill:
  """FastV (arXiv 2403.06764, the code): layers 0 to L - 1 process all tokens, the others only those that were picked.

  A token's score is the attention that it receives from the last token in layer L - 1, averaged over heads. Dropped tokens
  are removed from the caches of all layers, so that the answer's tokens do not see them in any layer.
  """
  decoder, whole, last_layer = model.language_model, model.prune(prompt, features), plan.pruning.prune_layer - 1
  deepstack = model.deepstack(whole, features)
  x, early = decoder.blocks(whole.embeddings, whole.positions, 0, last_layer, deepstack=deepstack)
  attention = decoder.attention_weights(x, whole.positions, whole.lengths[:, None] - 1, last_layer)
  scores = attention.mean(axis=1)[:, 0]
  x, scored = decoder.blocks(x, whole.positions, last_layer, last_layer + 1, deepstack=deepstack)

  rows = jax.vmap(lambda values, index: values[index])
  mask = prompt.visual_mask
  keep_count = min(plan.keep_count, mask.shape[1])
  counts = jnp.full(mask.shape[:1], keep_count) if plan.counts is None else plan.counts
  scores = rows(scores, prompt_lib.places(whole.order, prompt.visual_order))
  text, visual = (rows(x, prompt_lib.places(whole.order, order)) for order in (prompt.text_order, prompt.visual_order))
  kept = plan.pruning.rule(visual, scores, mask, counts, plan.seeds, keep_count=keep_count)
  sequence = prompt_lib.compact(prompt, text, visual, kept)

  at = prompt_lib.places(whole.order, sequence.order)
  early = [[rows(values, at) for values in first + second] for first, second in zip(early, scored)]
  x, late = decoder.blocks(
    sequence.embeddings,
    sequence.positions,
    last_layer + 1,
    len(decoder.layers),
    last=sequence.lengths - 1,
    deepstack=model.deepstack(sequence, features),
  )
  keys_values = tuple(tuple(first) + second for first, second in zip(early, late))
  return Prefill(last=decoder.norm(x)[:, 0], order=sequence.order, lengths=sequence.lengths, keys_values=keys_values)


STAGES = {"input": _at_input, "decoder": _in_decoder}
