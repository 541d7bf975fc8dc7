"""What a multimodal prompt is to the method: text tokens and visual tokens, each knowing its place.

Axes: B batch, T text slots, V visual slots, K kept slots, L compacted length (T + K), A position axes, D hidden size.

Text and visual tokens are held apart, padded to their own buckets. `*_order` is a token's index in the unpruned,
unpadded prompt, and -1 on padding, so it says both where a token belongs and whether it is real.
"""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Prompt:
  """A batch of prompts, planned on the host.

  Attributes:
    text_tokens: [B, T] int32, token ids.
    text_order: [B, T] int32, index in the prompt, -1 on padding.
    text_positions: [B, T, A] int32, rotary position ids (A = 3 with mRoPE, else 1).
    query_mask: [B, T] bool, the instruction tokens whose attention scores the visual tokens (METHOD: N).
    visual_slots: [B, V] int32, row of the vision encoder's output that fills this visual token.
    visual_order: [B, V] int32, index in the prompt, -1 on padding.
    visual_positions: [B, V, A] int32, rotary position ids.
    next_position: [B] int32, rotary position of the first generated token: max(unpruned positions) + 1.
  """

  text_tokens: jax.Array
  text_order: jax.Array
  text_positions: jax.Array
  query_mask: jax.Array
  visual_slots: jax.Array
  visual_order: jax.Array
  visual_positions: jax.Array
  next_position: jax.Array

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


@struct.dataclass
class Sequence:
  """Prompt embeddings in prompt order, padding last.

  Attributes:
    embeddings: [B, L, D].
    positions: [B, L, A] int32, every token's own, unpruned rotary position ids.
    order: [B, L] int32, index in the unpruned prompt, ascending, -1 on padding.
    visual: [B, L] bool, visual tokens.
  """

  embeddings: jax.Array
  positions: jax.Array
  order: jax.Array
  visual: jax.Array

  @property
  def lengths(self) -> jax.Array:
    """[B] int, real tokens of each row."""
    return (self.order >= 0).sum(-1)


def compact(prompt: Prompt, text: jax.Array, visual: jax.Array, kept: jax.Array) -> Sequence:
  """Drops the visual tokens that were not kept and restores prompt order (METHOD section 4).

  Every text token stays, order stays, and every token keeps its own position ids.

  Args:
    prompt: the unpruned prompts.
    text: [B, T, D] text embeddings.
    visual: [B, V, D] visual embeddings.
    kept: [B, K] int32, indices into V of the tokens to keep, -1 in unused slots.

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

  def arrange(text_values, visual_values):
    values = jnp.concatenate([text_values, gather(visual_values).astype(text_values.dtype)], axis=1)
    return rows(values, permutation)

  order = rows(order, permutation)
  return Sequence(
      embeddings=arrange(text, visual),
      positions=arrange(prompt.text_positions, prompt.visual_positions),
      order=order,
      visual=arrange(jnp.zeros_like(prompt.query_mask), prompt.visual_mask) & (order >= 0))


def places(order: jax.Array, wanted: jax.Array) -> jax.Array:
  """Where tokens stand in a sequence.

  Args:
    order: [B, L] of a `Sequence`.
    wanted: [B, N] prompt indices that are in it, or -1.

  Returns:
    [B, N] int32 indices into L; those of -1 mean nothing.
  """
  return jax.vmap(jnp.searchsorted)(order.astype(jnp.uint32), wanted.astype(jnp.uint32)).clip(0, order.shape[1] - 1)

