"""Grouped-query attention, the function that every port calls: by a kernel of the platform, or by XLA.

The platform is the mesh's, or that of the default device where there is no mesh. Memory is linear in length on every one.

Axes: B batch, T queries, S keys, N query heads, G key/value heads, M = N / G, d head dim.
"""

from __future__ import annotations

from einops import rearrange
import jax
import jax.numpy as jnp

from models import cpu
from models import sharding
from models.attention import kernels
from models.attention import xla

# Above this many logits per device, they are computed in blocks of queries, so that memory stays linear in the keys.
MOST_LOGITS = {"cpu": 1 << 22, "accelerator": 1 << 26}


def attention(
  query: jax.Array,
  key: jax.Array,
  value: jax.Array,
  *,
  mask: jax.Array | None = None,
  lengths: jax.Array | None = None,
  bias: jax.Array | None = None,
  causal: bool = False,
  mesh=None,
  rows=sharding.BATCH,
  heads="tensor",
) -> jax.Array:
  """softmax(q k^T / sqrt(d)) v with float32 logits.

  Args:
    query: [B, T, N, d].
    key: [B, S, G, d]; query head n reads key head n // (N / G).
    value: [B, S, G, d].
    mask: bool, True where a query may look, broadcastable to [B, T, S].
    lengths: [B] int32, number of keys of each row that count; the keys after them are padding, and so are the queries after
      them where T = S.
    bias: [B, S] float32, added to the logits of each key.
    causal: query t sees keys up to t only (T = S). Rows padded on the right then need no mask.
    mesh: of the devices that share the work, or None.
    rows: mesh axes that B may be split over.
    heads: mesh axes that N may be split over.

  Returns:
    [B, T, N, d] in value's dtype. A query that may look nowhere gets the mean of all values.
  """
  (batch, length, count, _), keys = query.shape, key.shape[1]
  device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
  if mask is None and bias is None and (kernel := kernels.choose(device, query, key)):
    return kernels.attend(kernel, query, key, value, lengths, causal=causal, mesh=mesh, rows=rows, heads=heads)
  if lengths is not None:
    counts = (jnp.arange(keys) < lengths[:, None])[:, None]
    mask = counts if mask is None else mask & counts
  query = rearrange(query, "B T (G M) d -> B G M T d", G=key.shape[2])
  key, value = rearrange(key, "B S G d -> B G d S"), rearrange(value, "B S G d -> B G S d")
  devices = 1 if mesh is None else mesh.size
  limit = MOST_LOGITS["cpu" if device.platform == "cpu" else "accelerator"] * devices
  if batch * count * length * keys <= limit:
    out = xla.attend(query, key, value, xla.allowed(mask, causal, 0, length, keys), bias)
  elif device.platform == "cpu" and devices == 1 and count * length * keys > cpu.CACHED_LOGITS:
    out = cpu.attend_by_head(xla.attend_in_blocks, query, key, value, mask, bias, lengths, causal)
  else:
    out = xla.attend_in_blocks(query, key, value, mask, bias, causal, limit)
  return rearrange(out, "B G M T d -> B T (G M) d")
