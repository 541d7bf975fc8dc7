"""Grouped-query attention, the one every port calls: by a kernel of the platform, or by XLA.

The platform is the mesh's, or that of the default device where there is no mesh. Memory is linear in length on all.

Axes: B batch, T queries, S keys, N query heads, G key/value heads, M = N / G, d head dim.
"""

from __future__ import annotations

import functools

from einops import rearrange
import jax
import jax.numpy as jnp

from models import kernels
from models import sharding

# More logits than this are computed in blocks, so that memory stays linear in the keys.
_MOST_LOGITS = {"cpu": 1 << 22, "accelerator": 1 << 26}
# Logits of a block that stays in a CPU's caches.
_CACHED_LOGITS = 1 << 19
# Fewer rows make slow products.
_LEAST_ROWS = 64
# Long rows are cut in so many parts, and on CPU the parts that do not count are left out.
_PARTS = 16
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
    lengths: [B] int32, keys of each row that count; those after them are padding, and so are queries where T = S.
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
  devices = 1 if mesh is None else mesh.size
  limit = _MOST_LOGITS["cpu" if device.platform == "cpu" else "accelerator"] * devices
  if batch * count * length * keys <= limit:
    out = _attend(query, key, value, _allowed(mask, causal, 0, length, keys), bias)
  elif device.platform == "cpu" and devices == 1 and count * length * keys > _CACHED_LOGITS:
    out = _attend_by_head(query, key, value, mask, bias, lengths, causal)
  else:
    out = _attend_in_blocks(query, key, value, mask, bias, causal, limit)
  return rearrange(out, "B G M T d -> B T (G M) d")


def _attend_by_head(query, key, value, mask, bias, lengths, causal):
  """`_attend` for long rows on CPU: a row and a key/value head at a time, without most of what a query cannot see.

  query [B, G, M, T, d], key [B, G, d, S], value [B, G, S, d], mask broadcastable to [B, T, S] or None, bias [B, S] or None,
  lengths [B] or None.
  """
  batch, length, keys = len(query), query.shape[3], key.shape[3]
  limit = max(_CACHED_LOGITS, _LEAST_ROWS * keys)
  parts = min(_PARTS, -(-query.shape[2] * length * keys // limit))
  stops = [-(-length * part // parts) for part in range(1, parts + 1)]
  if mask is not None:
    mask = jnp.broadcast_to(mask, (batch, *mask.shape[1:]))

  def over(start, stop, query, key, value, mask, bias):
    """Queries `start` to `stop`, over the keys before `stop`; both may be counted from the front as T = S."""
    mask = mask if mask is None or mask.shape[1] == 1 else mask[:, start:stop]
    first = lambda x: None if x is None else x[..., :stop]
    return _attend_in_blocks(query[..., start:stop, :], first(key), value[..., :stop, :], first(mask), first(bias), causal,
                             limit, start)

  def up_to(stop, *args):
    return jnp.pad(over(0, stop, *args), ((0, 0),) * 3 + ((0, length - stop), (0, 0)))

  def attend(count, *args):
    if causal:
      return jnp.concatenate([over(start, stop, *args) for start, stop in zip([0] + stops, stops)], axis=3)
    if count is None or length != keys:
      return _attend_in_blocks(*args, causal, limit)
    part_it_ends_in = jnp.searchsorted(jnp.asarray(stops), count)
    branches = [functools.partial(up_to, stop) for stop in stops]
    # A gradient computes it again, instead of keeping what every branch would leave it.
    return jax.checkpoint(lambda *args: jax.lax.switch(part_it_ends_in, branches, *args))(*args)

  def of_row(args):
    *heads, mask, bias, count = args
    alone = [None if x is None else x[None] for x in (mask, bias)]
    return jax.lax.map(lambda head: attend(count, *(x[None, None] for x in head), *alone)[0, 0], tuple(heads))

  return jax.lax.map(of_row, (query, key, value, mask, bias, lengths))


def _attend_in_blocks(query, key, value, mask, bias, causal, limit, start=0):
  """`_attend` for some queries at a time, so that a block has no more logits than `limit`; the first of them is `start`."""
  rows, heads, shared, queries, _ = query.shape
  keys = key.shape[3]
  blocks = -(-queries // max(1, limit // (rows * heads * shared * keys)))
  block = -(-queries // blocks)
  missing = blocks * block - queries
  query = jnp.pad(query, ((0, 0),) * 3 + ((0, missing), (0, 0)))
  if mask is not None and mask.shape[1] != 1:
    mask = jnp.pad(mask, ((0, 0), (0, missing), (0, 0)))

  def attend(args):
    at, query = args
    part = mask
    if mask is not None and mask.shape[1] != 1:
      part = jax.lax.dynamic_slice_in_dim(mask, at, block, axis=1)
    return _attend(query, key, value, _allowed(part, causal, start + at, block, keys), bias)

  query = rearrange(query, "B G M (C T) d -> C B G M T d", C=blocks)
  out = jax.lax.map(attend, (jnp.arange(blocks) * block, query))
  return rearrange(out, "C B G M T d -> B G M (C T) d")[..., :queries, :]


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
