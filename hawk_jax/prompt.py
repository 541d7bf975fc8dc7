"""A multimodal prompt as the method sees it: text tokens and visual tokens, each with its place in the prompt.

Axes: B batch, T text slots, V visual slots, K kept slots, L compacted length (T + K), A position axes, D hidden size.

Text and visual tokens are stored separately, each padded to a bucket of its own. `*_order` is a token's index in the
unpruned prompt without padding, and -1 on padding, so it says both where a token belongs and whether it is real.
"""

from __future__ import annotations

import dataclasses

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Prompt:
  """A batch of prompts, planned on the host.

  The prompt `a <img> <img> <img> b c` (one row, one position axis, T = 4, V = 4) becomes

    text_order      [[ 0, 4, 5, -1]]      visual_order      [[1, 2, 3, -1]]
    text_positions  [[[0], [4], [5], [0]]]  visual_positions  [[[1], [2], [3], [0]]]
    query_mask      [[F, T, T, F]]        visual_slots      [[0, 1, 2, 0]]
    visual_curve    [[0, 1, 2, 0]]        visual_places     [[1, 2, 3, 0]]
    next_position   [6]

  Attributes:
    text_tokens: [B, T] int32, token ids.
    text_order: [B, T] int32, index in the prompt, -1 on padding.
    text_positions: [B, T, A] int32, rotary position ids (A = 3 with mRoPE, else 1).
    query_mask: [B, T] bool, the instruction tokens whose attention scores the visual tokens (N in docs/method.md).
    visual_slots: [B, V] int32, row of the vision encoder's output that fills this visual token.
    visual_order: [B, V] int32, index in the prompt, -1 on padding; visual slots may be in another order than the prompt.
    visual_positions: [B, V, A] int32, rotary position ids.
    next_position: [B] int32, rotary position of the first generated token: max(unpruned positions) + 1.
    visual_places: [B, V] int32, equal for tokens that show the same place in several frames of a video, and for no others;
      None: no rule may ask for it.
    visual_curve: [B, V] int32, place of the token, from 0, on a curve through all pictures of its prompt; equal parts of the
      curve are compact regions, see `hawk_jax.selectors.regions`. 0 on padding. None: no
      rule may ask for it.
  """

  text_tokens: jax.Array
  text_order: jax.Array
  text_positions: jax.Array
  query_mask: jax.Array
  visual_slots: jax.Array
  visual_order: jax.Array
  visual_positions: jax.Array
  next_position: jax.Array
  visual_places: jax.Array | None = None
  visual_curve: jax.Array | None = None

  @property
  def visual_mask(self) -> jax.Array:
    """[B, V] bool, True on real visual tokens."""
    return self.visual_order >= 0

  @property
  def visual_counts(self) -> jax.Array:
    """[B] int, real visual tokens of each prompt."""
    return self.visual_mask.sum(-1)

  @property
  def text_counts(self) -> jax.Array:
    """[B] int, real text tokens of each prompt."""
    return (self.text_order >= 0).sum(-1)


_VISUAL = tuple(field.name for field in dataclasses.fields(Prompt) if field.name.startswith("visual_"))


@struct.dataclass
class Sequence:
  """Prompt embeddings in prompt order, padding last.

  Attributes:
    embeddings: [B, L, D].
    positions: [B, L, A] int32, each token's own, unpruned rotary position ids.
    order: [B, L] int32, index in the unpruned prompt, ascending, -1 on padding.
    visual: [B, L] bool, True on visual tokens.
    slots: [B, L] int32, row of the vision encoder's output that fills a visual token; no meaning elsewhere.
  """

  embeddings: jax.Array
  positions: jax.Array
  order: jax.Array
  visual: jax.Array
  slots: jax.Array

  @property
  def lengths(self) -> jax.Array:
    """[B] int, real tokens of each row."""
    return (self.order >= 0).sum(-1)


def keep_all(prompt: Prompt) -> jax.Array:
  """[B, V] int32, indices of all visual tokens: the `kept` with which `compact` removes none."""
  return jnp.where(prompt.visual_mask, jnp.arange(prompt.visual_order.shape[1], dtype=jnp.int32), -1)


def compact(
  prompt: Prompt, text: jax.Array, visual: jax.Array, kept: jax.Array, merged: jax.Array | None = None
) -> Sequence:
  """Removes the visual tokens that were not kept and restores prompt order (docs/method.md, "Compaction").

  Every text token is kept, the order does not change, and every token keeps its own position ids. With the example of
  `Prompt` and kept = [[0, 2]], which keeps the first and the third visual token:

    order      [[0, 1, 3, 4, 5, -1]]
    positions  [[[0], [1], [3], [4], [5], [0]]]
    visual     [[F, T, T, F, F, F]]
    slots      [[0, 0, 2, 0, 0, 0]]

  Args:
    prompt: the unpruned prompts.
    text: [B, T, D] text embeddings.
    visual: [B, V, D] visual embeddings.
    kept: [B, K] int32, indices into V of the tokens to keep, -1 in unused slots.
    merged: [B, K, D] embeddings of the kept tokens in place of their own; None: their own.

  Returns:
    A `Sequence` of static length T + K.
  """
  index = jnp.maximum(kept, 0)

  # Whole rows at a time: take_along_axis would gather, and in reverse mode scatter, element by element.
  rows = jax.vmap(lambda values, index: values[index])
  gather = lambda values: rows(values, index)
  order = jnp.concatenate([prompt.text_order, jnp.where(kept >= 0, gather(prompt.visual_order), -1)], axis=1)
  # -1 as unsigned is the largest key, so padding sorts last.
  permutation = jnp.argsort(order.astype(jnp.uint32), axis=1)

  def arrange(text_values, kept_values):
    return rows(jnp.concatenate([text_values, kept_values.astype(text_values.dtype)], axis=1), permutation)

  order = rows(order, permutation)
  return Sequence(
    embeddings=arrange(text, gather(visual) if merged is None else merged),
    positions=arrange(prompt.text_positions, gather(prompt.visual_positions)),
    order=order,
    slots=arrange(jnp.zeros_like(prompt.text_order), gather(prompt.visual_slots)),
    visual=arrange(jnp.zeros_like(prompt.query_mask), gather(prompt.visual_mask)) & (order >= 0),
  )


def places(order: jax.Array, wanted: jax.Array) -> jax.Array:
  """The slots of a sequence in which tokens with given prompt indices are.

  Args:
    order: [B, L] of a `Sequence`.
    wanted: [B, N] prompt indices that are in it, or -1.

  Returns:
    [B, N] int32 indices into L; where `wanted` is -1 they have no meaning.
  """
  return jax.vmap(jnp.searchsorted)(order.astype(jnp.uint32), wanted.astype(jnp.uint32)).clip(0, order.shape[1] - 1)


def split(prompt: Prompt, whole: Sequence, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Hidden states of an unpruned sequence, as text and as visual tokens.

  Args:
    prompt: the prompts.
    whole: all of their tokens in prompt order.
    hidden: [B, L, D] of these tokens.

  Returns:
    [B, T, D] and [B, V, D]; those of padding have no meaning.
  """
  rows = jax.vmap(lambda values, index: values[index])
  text, visual = (rows(hidden, places(whole.order, order)) for order in (prompt.text_order, prompt.visual_order))
  return text, visual


def narrow(prompt: Prompt, sequence: Sequence, keep_count: int) -> Prompt:
  """The prompts without the visual tokens that are not in a sequence of them.

  Args:
    prompt: the prompts.
    sequence: of these prompts.
    keep_count: static bound on the visual tokens of a row of the sequence.

  Returns:
    Prompts with `keep_count` visual slots, in the order of the given prompts'; padding comes last.
  """
  rows = jax.vmap(lambda values, index: values[index])
  found = rows(sequence.order, places(sequence.order, prompt.visual_order))
  present = prompt.visual_mask & (found == prompt.visual_order)
  # A stable sort leaves the slots in order.
  kept = jnp.argsort(~present, axis=1, stable=True)[:, :keep_count]
  taken = {name: rows(getattr(prompt, name), kept) for name in _VISUAL}
  order = jnp.where(rows(present, kept), taken.pop("visual_order"), -1)
  return dataclasses.replace(prompt, visual_order=order, **taken)
