"""What XLA's CPU compiler does slowly, done in another way. Other platforms compile what they would without this module.

`python -m experiments.speed.cpu` measures every workaround beside what it replaces; the gains below are its output (2 CPU
cores with AVX-512, without AMX, 2026-11-21).

| workaround | replaces | gain |
|---|---|---|
| `dot_general` | one row times a weight matrix, as one product | 0.9 to 1.6 times |
| `dot_general` | one to four rows in bfloat16, as one product | 1.3 to 4.5 times |
| `dot_general` | many rows in bfloat16, with a bfloat16 result | 1.9 to 2.0 times |
| `matmul` | many rows in float32, where the matmul precision is `bfloat16` | 1.8 times |
| `attend_by_head` | long rows with all heads at once, padding and masked keys included | 1.3 to 2.3 times |
| `kept` | cosines and sines computed again by every head, in one layer | 2.1 to 4.3 times |

Axes: B batch, T queries, S keys, G key/value heads, M query heads per key/value head, d head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import math
import pathlib

import jax
import jax.numpy as jnp

# Smaller weight matrices stay in a core's caches, where the plain product is as fast.
LEAST_SIZE = 1 << 18
# Logits of a block that stays in a CPU's caches.
CACHED_LOGITS = 1 << 19
# Parts that a few rows' product is cut into along the contraction.
_PRODUCT_PARTS = 8
# A product of more rows is limited by arithmetic, not by the bytes of the weight matrix.
_FEW_ROWS = 8
# Parts that a long row of attention is cut into.
_ROW_PARTS = 16
# Blocks of fewer queries make slow products.
_LEAST_QUERIES = 64
# What Linux calls instructions that multiply bfloat16: AMX and AVX-512 on x86, and those of Arm.
_BFLOAT16_FEATURES = frozenset({"amx_bf16", "avx512_bf16", "bf16"})


@functools.cache
def multiplies_bfloat16(cpuinfo: str = "/proc/cpuinfo") -> bool:
  """Whether this CPU has instructions that multiply bfloat16; False where the system does not say.

  Args:
    cpuinfo: the file in which Linux lists the features of every processor.
  """
  path = pathlib.Path(cpuinfo)
  lines = path.read_text().splitlines() if path.exists() else []
  features = next((line for line in lines if line.startswith(("flags", "Features"))), "")
  return not _BFLOAT16_FEATURES.isdisjoint(features.split())


def operand_dtype(dtype) -> jnp.dtype:
  """The dtype that a CPU multiplies operands of some dtype in; products are summed in float32.

  bfloat16 becomes float32 on CPUs that cannot multiply it. float32 becomes bfloat16 on those that can where the default
  matmul precision is `bfloat16`, which XLA's CPU compiler ignores.

  Args:
    dtype: of the operands.
  """
  dtype = jnp.dtype(dtype)
  if dtype == jnp.bfloat16 and not multiplies_bfloat16():
    return jnp.dtype(jnp.float32)
  precision = jax.config.jax_default_matmul_precision  # type: ignore[attr-defined]
  if dtype == jnp.float32 and precision == "bfloat16" and multiplies_bfloat16():
    return jnp.dtype(jnp.bfloat16)
  return dtype


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
  """`jnp.matmul` with a float32 result; on a CPU in `operand_dtype`."""
  whole = functools.partial(jnp.matmul, preferred_element_type=jnp.float32)
  kind = operand_dtype(a.dtype)
  if kind == a.dtype:
    return whole(a, b)
  return jax.lax.platform_dependent(a, b, cpu=lambda a, b: whole(a.astype(kind), b.astype(kind)), default=whole)


def dot_general(
  inputs: jax.Array, kernel: jax.Array, dimension_numbers, precision=None, preferred_element_type=None
) -> jax.Array:
  """`jax.lax.dot_general` for `nn.Dense`, fast on CPUs too.

  A few rows times a large matrix are computed in parts along the contraction, and a single bfloat16 row twice, since XLA's
  CPU compiler has no fast product of one. Other products are computed in `operand_dtype` with a float32 result, which is
  rounded to the result's dtype at the end: as bfloat16 it would be several times slower.

  Args:
    inputs: [..., in].
    kernel: [in, ...], of the same dtype.
    dimension_numbers: the last axis of inputs against an axis of kernel.
    precision: as in `jax.lax.dot_general`; the kernel's dtype is kept if it is given.
    preferred_element_type: as in `jax.lax.dot_general`.

  Returns:
    [..., out].
  """
  whole = functools.partial(
    jax.lax.dot_general,
    dimension_numbers=dimension_numbers,
    precision=precision,
    preferred_element_type=preferred_element_type,
  )
  dtype, rows = preferred_element_type or inputs.dtype, math.prod(inputs.shape[:-1])
  first = kernel.ndim == 2 and dimension_numbers[0][1] == (0,)
  if first and rows <= (1 if inputs.dtype == jnp.float32 else _FEW_ROWS) and kernel.size >= LEAST_SIZE:
    if kernel.shape[0] % _PRODUCT_PARTS == 0:
      return jax.lax.platform_dependent(inputs, kernel, cpu=lambda *args: _in_parts(*args).astype(dtype), default=whole)
  kind = operand_dtype(inputs.dtype) if precision is None else inputs.dtype
  if inputs.dtype == jnp.float32 == kind or jnp.bfloat16 not in (inputs.dtype, kind):
    return whole(inputs, kernel)

  def large(inputs, kernel):
    inputs, kernel = inputs.astype(kind), kernel.astype(kind)
    out = jax.lax.dot_general(inputs, kernel, dimension_numbers, preferred_element_type=jnp.float32)
    return out.astype(dtype)

  return jax.lax.platform_dependent(inputs, kernel, cpu=large, default=whole)


def _in_parts(inputs, kernel):
  """[..., in] times [in, out] as the float32 sum of products of parts of both."""
  rows = inputs.reshape(-1, _PRODUCT_PARTS, kernel.shape[0] // _PRODUCT_PARTS)
  if len(rows) == 1 and inputs.dtype == jnp.bfloat16:
    rows = jnp.repeat(rows, 2, axis=0)
  kernel = kernel.reshape(_PRODUCT_PARTS, -1, kernel.shape[1])
  parts = jnp.einsum("RPk,Pkn->PRn", rows, kernel, preferred_element_type=jnp.float32)
  return parts.sum(axis=0)[: math.prod(inputs.shape[:-1])].reshape(*inputs.shape[:-1], -1)


def attend_by_head(
  attend_in_blocks: Callable[..., jax.Array], query, key, value, mask, bias, lengths, causal: bool
) -> jax.Array:
  """Attention of long rows, one row and one key/value head at a time, without most of what a query cannot see.

  A causal row is cut into parts, and each part only meets the keys up to its end. A padded row only meets as many parts as
  it fills.

  Args:
    attend_in_blocks: of `models.attention.xla`.
    query: [B, G, M, T, d].
    key: [B, G, d, S].
    value: [B, G, S, d].
    mask: bool, broadcastable to [B, T, S], or None.
    bias: [B, S] float32, or None.
    lengths: [B] int32, as in `models.attention.attention`, or None.
    causal: query t sees keys up to t only.

  Returns:
    [B, G, M, T, d].
  """
  batch, length, keys = len(query), query.shape[3], key.shape[3]
  limit = max(CACHED_LOGITS, _LEAST_QUERIES * keys)
  parts = min(_ROW_PARTS, -(-query.shape[2] * length * keys // limit))
  stops = [-(-length * part // parts) for part in range(1, parts + 1)]
  if mask is not None:
    mask = jnp.broadcast_to(mask, (batch, *mask.shape[1:]))

  def over(start, stop, query, key, value, mask, bias):
    """Queries `start` to `stop`, over the keys before `stop`; only where T = S."""
    mask = mask if mask is None or mask.shape[1] == 1 else mask[:, start:stop]
    first = lambda x: None if x is None else x[..., :stop]
    return attend_in_blocks(
      query[..., start:stop, :], first(key), value[..., :stop, :], first(mask), first(bias), causal, limit, start
    )

  def up_to(stop, *args):
    return jnp.pad(over(0, stop, *args), ((0, 0),) * 3 + ((0, length - stop), (0, 0)))

  def attend(count, *args):
    if causal:
      return jnp.concatenate([over(start, stop, *args) for start, stop in zip([0] + stops, stops)], axis=3)
    if count is None or length != keys:
      return attend_in_blocks(*args, causal, limit)
    last_part = jnp.searchsorted(jnp.asarray(stops), count)
    branches = [functools.partial(up_to, stop) for stop in stops]
    # A gradient computes the branch again, instead of storing what every branch would need.
    return jax.checkpoint(lambda *args: jax.lax.switch(last_part, branches, *args))(*args)

  def of_row(args):
    *heads, mask, bias, count = args
    alone = [None if x is None else x[None] for x in (mask, bias)]
    return jax.lax.map(lambda head: attend(count, *(x[None, None] for x in head), *alone)[0, 0], tuple(heads))

  return jax.lax.map(of_row, (query, key, value, mask, bias, lengths))


def kept(functions: Sequence[Callable[[jax.Array], jax.Array]], x: jax.Array) -> tuple[jax.Array, ...]:
  """Several functions of an array, each computed once.

  XLA's CPU compiler would fuse cheap-looking functions such as cosines into every place that reads them, and compute them
  there again. The results of a loop are not fused.
  """
  results = lambda x: tuple(function(x) for function in functions)
  looped = lambda x: tuple(jax.lax.map(lambda number: jax.lax.switch(number, functions, x), jnp.arange(len(functions))))
  return jax.lax.platform_dependent(x, cpu=looped, default=results)
