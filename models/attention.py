"""Grouped-query attention, the one every port calls.

Axes: B batch, T queries, S keys, N query heads, G key/value heads, M = N / G, d head dim.
"""

from __future__ import annotations

from einops import rearrange
import jax
import jax.numpy as jnp

# Logits of more than this many elements are computed in blocks of queries, so memory stays linear in the keys.
MAX_LOGITS = 1 << 26
_MASKED = -1e30


def attention(query: jax.Array, key: jax.Array, value: jax.Array, *, mask: jax.Array | None = None,
              bias: jax.Array | None = None, causal: bool = False) -> jax.Array:
  """softmax(q k^T / sqrt(d)) v with float32 logits.

  Args:
    query: [B, T, N, d].
    key: [B, S, G, d]; query head n reads key head n // (N / G).
    value: [B, S, G, d].
    mask: bool, True where a query may look, broadcastable to [B, T, S].
    bias: [B, S] float32, added to the logits of each key.
    causal: query t sees keys up to t only (T = S). Rows padded on the right need no mask then.

  Returns:
    [B, T, N, d] in value's dtype. A query that may look nowhere gets the mean of all values.
  """
  batch, length, heads, _ = query.shape
  keys = key.shape[1]
  query = rearrange(query, "B T (G M) d -> B T G M d", G=key.shape[2])
  block = max(1, MAX_LOGITS // (batch * heads * keys))
  if length <= block:
    out = _attend(query, key, value, _allowed(mask, causal, 0, length, keys), bias)
  else:
    count = -(-length // block)
    padded = jnp.pad(query, ((0, 0), (0, count * block - length)) + ((0, 0),) * 3)
    blocks = rearrange(padded, "B (C T) G M d -> C B T G M d", C=count)

    def attend(args):
      index, queries = args
      rows = None
      if mask is not None:
        rows = mask
        if mask.shape[-2] != 1:
          rows = jax.lax.dynamic_slice_in_dim(jnp.pad(mask, ((0, 0), (0, count * block - length), (0, 0))),
                                              index * block, block, axis=1)
      return _attend(queries, key, value, _allowed(rows, causal, index * block, block, keys), bias)

    out = jax.lax.map(attend, (jnp.arange(count), blocks))
    out = rearrange(out, "C B T G M d -> B (C T) G M d")[:, :length]
  return rearrange(out, "B T G M d -> B T (G M) d")


def _allowed(mask, causal, start, length, keys):
  """Combined mask [.., T, S] of queries start .. start + length, or None."""
  if not causal:
    return mask
  rows = jnp.arange(length)[:, None] + start
  lower = (jnp.arange(keys) <= rows)[None]
  return lower if mask is None else lower & mask


def _attend(query, key, value, mask, bias):
  logits = jnp.einsum("BTGMd,BSGd->BGMTS", query, key, preferred_element_type=jnp.float32)
  logits *= query.shape[-1] ** -0.5
  if bias is not None:
    logits += bias[:, None, None, None]
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, _MASKED)
  weights = jax.nn.softmax(logits, axis=-1).astype(value.dtype)
  return jnp.einsum("BGMTS,BSGd->BTGMd", weights, value)
