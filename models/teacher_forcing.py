"""How likely a model finds given answers, without decoding.

Greedy decoding produces a reference answer exactly if every token of it is the most likely one after the prompt and the
answer tokens before it. One pass over the reference therefore gives its likelihood and whether decoding would produce it.

Axes: B batch, T answer tokens, L compacted prompt length, layers, N heads.
"""

from __future__ import annotations

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp

from hawk_jax.prompt import Prompt
from models import decoder
from models.prefill import Prefill
from models.vision_language import VisionLanguageModel


@struct.dataclass
class Verdict:
  """A model's judgement of reference answers.

  Attributes:
    log_likelihood: [B] float32, sum over the answer's tokens.
    right: [B] bool, whether greedy decoding produces exactly these tokens.
  """

  log_likelihood: jax.Array
  right: jax.Array


def judge(
  model: VisionLanguageModel,
  prompt: Prompt,
  prefill: Prefill,
  answers: jax.Array,
  intervention: decoder.Intervention = decoder.NOTHING,
) -> Verdict:
  """Judges reference answers; a method for `model.apply`.

  Args:
    model: a bound port.
    prompt: the unpruned prompts.
    prefill: of the same prompts, pruned or not, under an intervention of its own.
    answers: [B, T] int32, with their end token, -1 on padding.
    intervention: in the answer's attention, over the L tokens of the prefill as keys.
  """
  length = answers.shape[1]
  hidden = prefill.last[:, None]
  if length > 1:
    cache = prefill.make_cache(length - 1, model.mesh)
    positions = prompt.next_position[:, None] + jnp.arange(length - 1)
    widen = lambda x: None if x is None else jnp.pad(x, ((0, 0), (0, length - 1)))
    wide = dataclasses.replace(intervention, hidden=widen(intervention.hidden), key_bias=widen(intervention.key_bias))
    later, _ = model.extend(jnp.maximum(answers[:, :-1], 0), positions, cache, wide)
    hidden = jnp.concatenate([hidden, later], axis=1)
  logits = model.logits(hidden)
  real, wanted = answers >= 0, jnp.maximum(answers, 0)
  chosen = jax.vmap(jax.vmap(lambda row, token: row[token]))(jax.nn.log_softmax(logits), wanted)
  return Verdict(
    log_likelihood=jnp.where(real, chosen, 0.0).sum(-1), right=jnp.where(real, logits.argmax(-1) == wanted, True).all(-1)
  )
