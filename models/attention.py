"""Grouped-query attention, the one every port calls: by a kernel of the platform, or by XLA.

The platform is the mesh's, or that of the default device where there is no mesh. Memory is linear in length on all.

Axes: B batch, T queries, S keys, N query heads, G key/value heads, M = N / G, d head dim.
"""

from __future__ import annotations

from einops import rearrange
import jax
import jax.numpy as jnp

from models import kernels
from models import sharding

# Logits of more elements on a device are computed in blocks of queries: memory stays linear in the keys, and a block in
# CPU caches. Accelerators want larger blocks.
MAX_LOGITS = 1 << 22
_MAX_LOGITS_ACCELERATOR = 1 << 26
_MASKED = -1e30


def attention(query: jax.Array, key: jax.Array, value: jax.Array, *, mask: jax.Array | None = None,
              lengths: jax.Array | None = None, bias: jax.Array | None = None, causal: bool = False, mesh=None,
              rows=sharding.BATCH, heads="tensor") -> jax.Array:
  """softmax(q k^T / sqrt(d)) v with float32 logits.

  Args:
    query: [B, T, N, d].
    key: [B, S, G, d]; query head n reads key head n // (N / G).
    value: [B, S, G, d].
    mask: bool, True where a query may look, broadcastable to [B, T, S].
    lengths: [B] int32, keys of each row that count; those after them are padding.
    bias: [B, S] float32, added to the logits of each key.
    causal: query t sees keys up to t only (T = S). Rows padded on the right need no mask then.
    mesh: of the devices that share the work, or None.
    rows: mesh axes that B may be split over.
    heads: mesh axes that N may be split over.

  Returns:
    [B, T, N, d] in value's dtype. A query that may look nowhere gets the mean of all values.
  """
  batch, length, count, _ = query.shape
  keys = key.shape[1]
  device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
  kernel = kernels.choose(device, query, key) if mask is None and bias is None else None
  if kernel:
    return kernels.attend(kernel, query, key, value, lengths, causal=causal, mesh=mesh, rows=rows, heads=heads)
  if lengths is not None:
    seen = (jnp.arange(keys) < lengths[:, None])[:, None]
    mask = seen if mask is None else mask & seen
  query = rearrange(query, "B T (G M) d -> B G M T d", G=key.shape[2])
  key, value = rearrange(key, "B S G d -> B G d S"), rearrange(value, "B S G d -> B G S d")
  limit = MAX_LOGITS if device.platform == "cpu" else _MAX_LOGITS_ACCELERATOR * (1 if mesh is None else mesh.size)
  block = max(1, limit // (batch * count * keys))
  if length <= block:
    out = _attend(query, key, value, _allowed(mask, causal, 0, length, keys), bias)
  else:
    blocks = -(-length // block)
    block = -(-length // blocks)
    missing = blocks * block - length
    padded = jnp.pad(query, ((0, 0),) * 3 + ((0, missing), (0, 0)))
    padded = rearrange(padded, "B G M (C T) d -> C B G M T d", C=blocks)
    if mask is not None and mask.shape[-2] != 1:
      mask = jnp.pad(mask, ((0, 0), (0, missing), (0, 0)))

    def attend(args):
      index, queries = args
      part = mask
      if mask is not None and mask.shape[-2] != 1:
        part = jax.lax.dynamic_slice_in_dim(mask, index * block, block, axis=1)
      return _attend(queries, key, value, _allowed(part, causal, index * block, block, keys), bias)

    out = jax.lax.map(attend, (jnp.arange(blocks), padded))
    out = rearrange(out, "C B G M T d -> B G M (C T) d")[..., :length, :]
  return rearrange(out, "B G M T d -> B T (G M) d")


def _allowed(mask, causal, start, length, keys):
  """Combined mask [.., T, S] of queries start .. start + length, or None."""
  if not causal:
    return mask
  rows = jnp.arange(length)[:, None] + start
  lower = (jnp.arange(keys) <= rows)[None]
  return lower if mask is None else lower & mask


def _attend(query, key, value, mask, bias):
  """One block: query [B, G, M, T, d], key [B, G, d, S] and value [B, G, S, d], as matrix products take them."""
  queries = query.shape[3]
  merge = lambda x: rearrange(x, "B G M T d -> B G (M T) d")
  logits = jnp.matmul(merge(query), key, preferred_element_type=jnp.float32) * query.shape[-1] ** -0.5
  logits = rearrange(logits, "B G (M T) S -> B G M T S", T=queries)
  if bias is not None:
    logits += bias[:, None, None, None]
  if mask is not None:
    logits = jnp.where(mask[:, None, None], logits, _MASKED)
  weights = jnp.exp(logits - jax.lax.stop_gradient(logits.max(axis=-1, keepdims=True)))
  # Dividing what comes out is T x d divisions instead of T x S.
  out = jnp.matmul(merge(weights.astype(value.dtype)), value, preferred_element_type=jnp.float32)
  out = rearrange(out, "B G (M T) d -> B G M T d", T=queries) / weights.sum(axis=-1, keepdims=True)
  return out.astype(value.dtype)
