"""The attention kernels of the ecosystem, and where they apply: memory linear in length, no logits matrix.

TPU: the Pallas flash attention that ships with JAX. GPU: cuDNN through `jax.nn.dot_product_attention`. Both run under
`shard_map`, since the compiler cannot split a kernel that it does not see into.

Axes: B batch, T queries, S keys, N query heads, G key/value heads, d head dim.
"""

from __future__ import annotations

import functools
import math

from einops import rearrange
import jax
import jax.numpy as jnp

from models import sharding

# With fewer keys than this the logits fit in memory, and XLA's own attention is as good.
MIN_KEYS = 1024
_LANES = 128
_BLOCKS = (512, 256, _LANES)


def choose(device: jax.Device, query: jax.Array, key: jax.Array) -> str | None:
  """The kernel for an attention without bias and with no mask but causality and lengths.

  Args:
    device: the one it will run on.
    query: [B, T, N, d].
    key: [B, S, G, d].

  Returns:
    `pallas`, `cudnn`, or None where no kernel applies and XLA computes it.
  """
  head_dim, dtype = query.shape[-1], query.dtype.name
  if min(query.shape[1], key.shape[1]) < MIN_KEYS or key.dtype != query.dtype:
    return None
  if device.platform == "tpu":
    whole = head_dim <= _LANES or head_dim % _LANES == 0
    return "pallas" if whole and dtype in ("bfloat16", "float32") else None
  # Only NVIDIA's devices have a capability of this form; cuDNN's kernel needs Ampere or later.
  major = str(getattr(device, "compute_capability", "")).partition(".")[0]
  if device.platform == "gpu" and major.isdecimal() and int(major) >= 8:
    return "cudnn" if head_dim <= 128 and head_dim % 8 == 0 and dtype in ("bfloat16", "float16") else None
  return None


def attend(kernel: str, query, key, value, lengths, *, causal: bool, mesh, rows, heads) -> jax.Array:
  """Attention by a kernel.

  Args:
    kernel: of `choose`.
    query: [B, T, N, d].
    key: [B, S, G, d].
    value: [B, S, G, d].
    lengths: [B] int32, keys of each row that count, or None: all.
    causal: query t sees keys up to t only (T = S).
    mesh: of devices, or None.
    rows: mesh axes to split B over, as far as they divide it.
    heads: mesh axes to split N over, as far as they divide it; they go before `rows`.

  Returns:
    [B, T, N, d].
  """
  function = functools.partial({"pallas": _pallas, "cudnn": _cudnn}[kernel], causal=causal)
  if mesh is None:
    return function(query, key, value, lengths)
  across = sharding.fit(mesh, heads, query.shape[2])
  along = sharding.fit(mesh, tuple(axis for axis in rows if axis not in across), query.shape[0])
  parts = math.prod(mesh.shape[axis] for axis in across)
  # Each device needs the key/value heads of its query heads: where there are too few to split, some are copied.
  copies = parts // math.gcd(parts, key.shape[2])
  if copies > 1:
    key, value = (jnp.repeat(x, copies, axis=2) for x in (key, value))
  spec = sharding.P(along or None, None, across or None, None)
  lengths_spec = None if lengths is None else sharding.P(along or None)
  split = jax.shard_map(function, mesh=mesh, in_specs=(spec, spec, spec, lengths_spec), out_specs=spec, check_vma=False)
  return split(query, key, value, lengths)


def _cudnn(query, key, value, lengths, *, causal, implementation="cudnn"):
  """The tests run the same call with the implementation `xla`, since cuDNN needs a GPU."""
  # A row without a key would have no softmax; its result is not read.
  lengths = None if lengths is None else jnp.maximum(lengths, 1).astype(jnp.int32)
  return jax.nn.dot_product_attention(
    query, key, value, is_causal=causal, key_value_seq_lengths=lengths, implementation=implementation
  )


def _pallas(query, key, value, lengths, *, causal):
  from jax.experimental.pallas.ops.tpu import flash_attention as pallas  # slow to import, and only for TPUs

  (_, queries, count, head_dim), keys = query.shape, key.shape[1]
  # The kernel has no groups, and takes whole blocks: the keys added to fill a block belong to another segment.
  key, value = (jnp.repeat(x, count // x.shape[2], axis=2) for x in (key, value))
  query, query_block = _whole_blocks(query)
  key, key_block = _whole_blocks(key)
  value, _ = _whole_blocks(value)
  segments = None
  if lengths is not None or (key.shape[1] > keys and not causal):
    lengths = jnp.full(key.shape[:1], keys) if lengths is None else lengths
    hidden = jnp.arange(key.shape[1]) >= lengths[:, None]
    segments = pallas.SegmentIds(jnp.zeros(query.shape[:2], jnp.int32), hidden.astype(jnp.int32))
  by_head = lambda x: rearrange(x, "B T N d -> B N T d")
  sizes = pallas.BlockSizes(
    block_b=1,
    block_q=query_block,
    block_k_major=key_block,
    block_k=key_block,
    block_q_major_dkv=query_block,
    block_q_dkv=query_block,
    block_k_major_dkv=key_block,
    block_k_dkv=key_block,
    block_q_dq=query_block,
    block_k_major_dq=key_block,
    block_k_dq=key_block,
  )
  out = pallas.flash_attention(
    by_head(query),
    by_head(key),
    by_head(value),
    segment_ids=segments,
    causal=causal,
    sm_scale=head_dim**-0.5,
    block_sizes=sizes,
  )
  return rearrange(out, "B N T d -> B T N d")[:, :queries]


def _whole_blocks(x):
  """[B, T, N, d] padded along T to whole blocks, and the block: the largest that adds at most a sixteenth."""
  length = x.shape[1]
  block = next(size for size in _BLOCKS if size == _LANES or 16 * (-length % size) <= length)
  return jnp.pad(x, ((0, 0), (0, -length % block), (0, 0), (0, 0))), block
