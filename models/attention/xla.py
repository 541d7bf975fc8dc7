"""Attention by XLA's own matrix products, whole or in blocks of queries.

Axes: B batch, T queries, S keys, G key/value heads, M query heads per key/value head, d head dim. Queries are
[B, G, M, T, d], keys [B, G, d, S] and values [B, G, S, d], as matrix products take them.
"""

from __future__ import annotations

from einops import rearrange
import jax
import jax.numpy as jnp

from models import cpu

_MASKED = -1e30


def attend(query, key, value, mask, bias) -> jax.Array:
  """All logits at once.

  Args:
    query: [B, G, M, T, d].
    key: [B, G, d, S].
    value: [B, G, S, d].
    mask: bool, broadcastable to [B, T, S], or None.
    bias: [B, S] float32, or None.

  Returns:
    [B, G, M, T, d] in value's dtype.
  """
  queries = query.shape[3]
  merge = lambda x: rearrange(x, "B G M T d -> B G (M T) d")
  logits = cpu.matmul(merge(query), key) * query.shape[-1] ** -0.5
  logits = rearrange(logits, "B G (M T) S -> B G M T S", T=queries)
  if bias is not None:
    logits += bias[:, None, None, None]
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, _MASKED)
  weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
  # Dividing the result takes T x d divisions instead of T x S.
  out = cpu.matmul(merge(weights.astype(value.dtype)), value)
  out = rearrange(out, "B G (M T) d -> B G M T d", T=queries) / weights.sum(axis=-1, keepdims=True)
  return out.astype(value.dtype)


def attend_in_blocks(query, key, value, mask, bias, causal: bool, limit: int, start: int = 0) -> jax.Array:
  """`attend` for some queries at a time, so that a block has at most `limit` logits.

  Args:
    query: as in `attend`.
    key: as in `attend`.
    value: as in `attend`.
    mask: as in `attend`.
    bias: as in `attend`.
    causal: query t sees keys up to t only.
    limit: most logits of a block.
    start: number of the first query, for the causal mask.
  """
  rows, heads, shared, queries, _ = query.shape
  keys = key.shape[3]
  blocks = -(-queries // max(1, limit // (rows * heads * shared * keys)))
  block = -(-queries // blocks)
  missing = blocks * block - queries
  query = jnp.pad(query, ((0, 0),) * 3 + ((0, missing), (0, 0)))
  if mask is not None and mask.shape[1] != 1:
    mask = jnp.pad(mask, ((0, 0), (0, missing), (0, 0)))

  def attend_block(args):
    at, query = args
    part = mask
    if mask is not None and mask.shape[1] != 1:
      part = jax.lax.dynamic_slice_in_dim(mask, at, block, axis=1)
    return attend(query, key, value, allowed(part, causal, start + at, block, keys), bias)

  query = rearrange(query, "B G M (C T) d -> C B G M T d", C=blocks)
  out = jax.lax.map(attend_block, (jnp.arange(blocks) * block, query))
  return rearrange(out, "C B G M T d -> B G M (C T) d")[..., :queries, :]


def allowed(mask, causal: bool, start, length: int, keys: int) -> jax.Array | None:
  """The mask [.., T, S] of queries start to start + length, causality included; None: they see all keys."""
  if not causal:
    return mask
  rows = jnp.arange(length)[:, None] + start
  lower = (jnp.arange(keys) <= rows)[None]
  return lower if mask is None else lower & mask
