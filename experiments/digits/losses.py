"""What training asks of an embedded model: right answers and, at first, auxiliary losses that help it to find them.

Axes: B pictures, Q questions per picture, T tokens of a question, V visual tokens, H query heads, M = 2 query heads that
share the first key head, d head dim, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.digits import batches
from hawk_jax import prompt as prompt_lib
from models import cache as cache_lib
from models import rope
from models.vision_language import VisionLanguageModel


@struct.dataclass
class Outputs:
  """What the losses are computed from.

  Attributes:
    logits: [B, Q, 2, vocab] float32, for the answer and the end token.
    early: [B, Q, T, vocab] float32, logits at every token of the question.
    visual: [B, V, D] visual tokens as the decoder gets them.
    middle: [B, V, D] hidden states of the visual tokens half way up the decoder.
    pointing: [B, Q, M, V] attention logits half way up the decoder, from each question's last token.
    scores: [B, Q, H, V] HAWK's scores: attention logits of the first layer without rotary positions, averaged over each
      question's tokens.
  """

  logits: jax.Array
  early: jax.Array
  visual: jax.Array
  middle: jax.Array
  pointing: jax.Array
  scores: jax.Array


def forward(params: dict[str, Any], batch: batches.Batch, *, model: VisionLanguageModel) -> Outputs:
  """Runs each picture once, and then all of its questions as if each were the only one.

  Args:
    params: of the model.
    batch: of `make_batch`.
    model: a port.
  """
  apply = functools.partial(model.apply, {"params": params})
  text = model.config.text
  half, sharing = text.num_hidden_layers // 2, text.num_attention_heads // text.num_key_value_heads
  prompt = batch.inputs.prompt
  size, number, length = batch.tokens.shape
  tokens, targets = batch.tokens.reshape(-1, length), batch.target_index.reshape(-1, 2)  # [B * Q, ...]
  per_question = lambda tree: jax.tree.map(lambda x: jnp.repeat(x, number, axis=0) if x.ndim else x, tree)
  rows = jax.vmap(lambda values, index: values[index])

  def run_picture(model, sequence, features):
    blocks = functools.partial(model.language_model.blocks, deepstack=model.deepstack(sequence, features))
    below, early = blocks(sequence.embeddings, sequence.positions, 0, half)
    _, late = blocks(below, sequence.positions, half, text.num_hidden_layers)
    return below, tuple(first + second for first, second in zip(early, late))

  features = apply(batch.inputs.vision, method="encode")
  sequence = apply(prompt, features, method="prune")
  below, keys_values = apply(sequence, features, method=run_picture)
  places = prompt_lib.places(sequence.order, prompt.visual_order)
  keys = rows(keys_values[0][half][:, :, 0], places)

  # Every question extends a copy of its picture's cache. The layer half way up also returns its queries.
  cache = per_question(cache_lib.make(keys_values, sequence.lengths, length))
  if batch.seen is not None:
    unseen = (~batch.seen & prompt.visual_mask[:, None]).reshape(size * number, -1)
    cache = cache.replace(valid=_hide(cache.valid, per_question(places), unseen))
  positions = per_question(prompt.next_position)[:, None] + jnp.arange(length)
  query_path = ("language_model", f"layers_{half}", "self_attn", "q_proj")
  (hidden, _), captured = apply(
    tokens,
    positions,
    cache,
    method="extend",
    mutable="intermediates",
    capture_intermediates=lambda module, _: module.path == query_path,
  )
  logits = apply(rows(hidden, targets), method="logits")

  # The rotated queries of each question's last token, against the picture's keys.
  last = targets[:, :1]
  [queries] = functools.reduce(lambda tree, name: tree[name], (*query_path, "__call__"), captured["intermediates"])
  queries = rows(queries, last).reshape(size * number, 1, -1, text.head_dim)
  positions = jnp.repeat(jnp.take_along_axis(positions, last, axis=1)[..., None], text.position_axes, axis=-1)
  queries = rope.rotate(queries, *rope.rotation(positions, text.frequencies)).reshape(size, number, -1, text.head_dim)
  pointing = jnp.einsum("BQMd,BVd->BQMV", queries[:, :, :sharing], keys) / text.head_dim**0.5

  # HAWK's scores, with the whole question as the query.
  asked = per_question(prompt).replace(text_tokens=tokens, query_mask=jnp.arange(length) <= last)
  scores = apply(asked, features, method="scores")
  per_picture = lambda x: x.reshape(size, number, *x.shape[1:])
  return Outputs(
    logits=per_picture(logits),
    early=per_picture(apply(hidden, method="logits")),
    visual=features.tokens[prompt.visual_slots],
    middle=rows(below, places),
    pointing=pointing,
    scores=per_picture(scores),
  )


def _hide(valid, places, hidden):
  """`valid` [B, S] without the places [B, V] of what is hidden [B, V]."""
  at = jax.vmap(lambda places, hidden: jnp.zeros(valid.shape[1], bool).at[places].max(hidden))(places, hidden)
  return valid & ~at


def answers(outputs: Outputs, batch: batches.Batch) -> jax.Array:
  """The answer's token, and then the end token."""
  return optax.softmax_cross_entropy_with_integer_labels(outputs.logits, batch.targets).mean()


def cells(outputs: Outputs, batch: batches.Batch, probe: jax.Array) -> jax.Array:
  """Each visual token shows its own cell to a linear probe, as a pretrained vision tower's tokens would."""
  return _probe(outputs.visual @ probe, batch.cells, batches.CELL_CLASSES)


def early(outputs: Outputs, batch: batches.Batch) -> jax.Array:
  """Every token of the question shows the answer; those before the word that matters can only guess."""
  asked = jnp.arange(outputs.early.shape[2]) < batch.target_index[..., :1]
  losses = optax.softmax_cross_entropy_with_integer_labels(outputs.early, batch.targets[..., :1])
  return jnp.where(asked, losses, 0).sum() / asked.sum()


def left(outputs: Outputs, batch: batches.Batch, probe: jax.Array) -> jax.Array:
  """Half way up the decoder, each visual token shows the cell to its left to a linear probe."""
  return _probe(outputs.middle @ probe, batch.left, batches.LEFT_CLASSES)


def point_middle(outputs: Outputs, batch: batches.Batch) -> jax.Array:
  """Half way up the decoder, M heads look from the question's last token at the cells that the question is about."""
  return _point(outputs.pointing, batch.about, batch)


def point_first(outputs: Outputs, batch: batches.Batch) -> jax.Array:
  """In the first layer without rotary positions, M heads look from the whole question at the cells that it is about, and the
  second half of the heads looks at the grey digits, whatever the question."""
  sharing, heads = outputs.pointing.shape[2], outputs.scores.shape[2]
  grey = (batch.cells[..., 1] == batches.GREY) & batch.inputs.prompt.visual_mask
  grey /= jnp.maximum(grey.sum(-1, keepdims=True), 1)
  grey = jnp.broadcast_to(grey[:, None], batch.about.shape)
  return _point(outputs.scores[:, :, :sharing], batch.about, batch) + _point(outputs.scores[:, :, heads // 2 :], grey, batch)


AUXILIARY: dict[str, Callable[..., jax.Array]] = {
  function.__name__: function for function in (cells, left, early, point_middle, point_first)
}
# Classes that linear probes tell apart, by the field of the batch that holds them.
_CLASSES = {"cells": batches.CELL_CLASSES, "left": batches.LEFT_CLASSES}


def make_probes(names: Sequence[str], hidden_size: int) -> dict[str, jax.Array]:
  """Linear probes of visual tokens, [D, classes] each, all zero.

  Args:
    names: `cells`, `left`, or both.
    hidden_size: D.
  """
  return {name: jnp.zeros([hidden_size, sum(_CLASSES[name])]) for name in names}


def reading(
  params: dict[str, Any], batch: batches.Batch, *, model: VisionLanguageModel
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """What the vision tower alone is to learn: each visual token shows to all probes what they are to find.

  Args:
    params: as in `total`.
    batch: of `make_batch`.
    model: the port.

  Returns:
    The loss, and each of its terms.
  """
  features = model.apply({"params": params["model"]}, batch.inputs.vision, method="encode")
  visual = features.tokens[batch.inputs.prompt.visual_slots]
  terms = {
    name: _probe(visual @ probe, getattr(batch, name), _CLASSES[name]) for name, probe in sorted(params["probes"].items())
  }
  return sum(terms.values()), terms


def total(
  params: dict[str, Any], batch: batches.Batch, weight: jax.Array, *, model: VisionLanguageModel, auxiliary: tuple[str, ...]
) -> tuple[jax.Array, tuple[dict[str, jax.Array], jax.Array]]:
  """The loss that training minimizes.

  Args:
    params: `model`, the model's parameters, and `probes`, of `make_probes`.
    batch: of `make_batch`.
    weight: [] float32 factor of the auxiliary losses.
    model: the port.
    auxiliary: names in AUXILIARY.

  Returns:
    The loss; each of its terms; and [B, Q] bool, the questions that are answered correctly.
  """
  outputs = forward(params["model"], batch, model=model)
  probe = lambda name: (params["probes"][name],) if name in _CLASSES else ()
  terms = {name: AUXILIARY[name](outputs, batch, *probe(name)) for name in auxiliary}
  answer = answers(outputs, batch)
  return answer + weight * sum(terms.values()), ({"answer": answer, **terms}, right(outputs, batch))


def right(outputs: Outputs, batch: batches.Batch) -> jax.Array:
  """[B, Q] bool, the questions that are answered correctly."""
  return outputs.logits[:, :, 0].argmax(-1) == batch.targets[:, :, 0]


def _probe(logits, labels, classes):
  """Mean cross-entropy of labels [B, V, n], summed over n; logits [B, V, sum(classes)]."""
  parts = jnp.split(logits, np.cumsum(classes)[:-1], axis=-1)
  return sum(
    optax.softmax_cross_entropy_with_integer_labels(part, labels[..., number]).mean() for number, part in enumerate(parts)
  )


def _point(logits, wanted, batch):
  """Mean cross-entropy between where heads look, logits [B, Q, heads, V], and where they should, [B, Q, V] with sum 1."""
  logits = jnp.where(batch.inputs.prompt.visual_mask[:, None, None], logits, -1e9)
  return optax.softmax_cross_entropy(logits, wanted[:, :, None]).mean()
