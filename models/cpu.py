"""What XLA's CPU compiler does slowly, done in another way. Other platforms compile what they would without this module.

`python -m experiments.speed.cpu` measures every workaround beside what it replaces; the gains below are its output (2 CPU
cores with AVX-512, without AMX, 2026-11-22).

| workaround | replaces | gain |
|---|---|---|
| `dot_general` | one row times a weight matrix, as one product | 1.0 to 1.7 times |
| `dot_general` | one or two rows in bfloat16, as one product | 1.9 to 11.8 times |
| `dot_general` | four rows in bfloat16, as one product | 1.4 times |
| `dot_general` | one row in bfloat16 times a transposed weight matrix | 8.2 times |
| `look_up` | rows of a bfloat16 table, in a loop of 15 steps | 37.7 times |
| `dot_general` | many rows in bfloat16, with a bfloat16 result | 2.2 to 2.3 times |
| `matmul` | many rows in float32, where the matmul precision is `bfloat16` | 1.7 times |
| `attend_by_head` | long rows with all heads at once, padding and masked keys included | 1.3 to 2.3 times |
| `kept` | cosines and sines computed again by every head, in one layer | 2.1 to 2.3 times |

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
# Rows in bfloat16 that are multiplied one by one; each of them reads the whole weight matrix.
_ROWS_ALONE = 2
# Products that are added at once, and rows of a weight matrix that are read in one stretch.
_TERMS = _NEIGHBORS = 8
# Elements of a weight matrix up to which sums of `_TERMS` products stay in a CPU's caches. Larger ones take twice as many.
_CACHED_SUMS = 1 << 24
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

  A few rows times a large matrix are computed in parts along the contraction. XLA's CPU compiler has no fast product of a
  single bfloat16 row: one or two rows times a large matrix are summed without it, and one row times a transposed matrix is
  computed twice. Other products are computed in `operand_dtype` with a float32 result, which is rounded to the result's
  dtype at the end: as bfloat16 it would be several times slower.

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
    alone = inputs.dtype == jnp.bfloat16 and rows <= _ROWS_ALONE
    few, multiple = (_one_by_one, 2 * _TERMS * _NEIGHBORS) if alone else (_in_parts, _PRODUCT_PARTS)
    if kernel.shape[0] % multiple == 0:
      return jax.lax.platform_dependent(inputs, kernel, cpu=lambda *args: few(*args).astype(dtype), default=whole)
  kind = operand_dtype(inputs.dtype) if precision is None else inputs.dtype
  if inputs.dtype == jnp.float32 == kind or jnp.bfloat16 not in (inputs.dtype, kind):
    return whole(inputs, kernel)

  def large(inputs, kernel):
    inputs, kernel = inputs.astype(kind), kernel.astype(kind)
    twice = kind == jnp.bfloat16 and rows == 1 and inputs.ndim > 1
    inputs = jnp.repeat(inputs, 2, axis=0) if twice else inputs
    out = jax.lax.dot_general(inputs, kernel, dimension_numbers, preferred_element_type=jnp.float32)
    return (out[:1] if twice else out).astype(dtype)

  return jax.lax.platform_dependent(inputs, kernel, cpu=large, default=whole)


def _in_parts(inputs, kernel):
  """[..., in] times [in, out] as the float32 sum of products of parts of both."""
  rows = inputs.reshape(-1, _PRODUCT_PARTS, kernel.shape[0] // _PRODUCT_PARTS)
  kernel = kernel.reshape(_PRODUCT_PARTS, -1, kernel.shape[1])
  parts = jnp.einsum("RPk,Pkn->PRn", rows, kernel, preferred_element_type=jnp.float32)
  return parts.sum(axis=0).reshape(*inputs.shape[:-1], -1)


def _one_by_one(inputs, kernel):
  """[..., in] times [in, out] in bfloat16, one row after another, as sums in float32."""
  rows = inputs.reshape(-1, kernel.shape[0])
  return jnp.concatenate([_row(row, kernel) for row in rows]).reshape(*inputs.shape[:-1], -1)


def _row(row, kernel):
  """[in] times [in, out] in bfloat16 as [1, out] float32.

  First, sums of a few products each: element by element, in a loop that reads the kernel once, in bfloat16, and whose
  operations are vector instructions. What is added together is far apart in the kernel, and `_NEIGHBORS` rows follow each
  other, since memory is read fastest in long stretches. Then, in float32, the sums of these sums.
  """
  terms = _TERMS if kernel.size <= _CACHED_SUMS else 2 * _TERMS
  row, sums = row.astype(jnp.float32).reshape(-1, terms, _NEIGHBORS, 1), 0
  for start in range(0, terms, _TERMS):
    # Otherwise the kernel would be converted in a loop of its own: once, before the decoding loop, into a float32 copy; or,
    # every time, where more than 15 terms read it.
    row, kernel = jax.lax.optimization_barrier((row, kernel))
    rows = kernel.astype(jnp.float32).reshape(-1, terms, _NEIGHBORS, kernel.shape[1])
    sums += sum(row[:, term] * rows[:, term] for term in range(start, start + _TERMS))
  sums = sums.reshape(-1, kernel.shape[1])
  return jnp.ones((1, len(sums))) @ sums


def look_up(table: jax.Array, rows: jax.Array) -> jax.Array:
  """`jnp.take(table, rows, axis=0)`, without a float32 copy of a bfloat16 table before a loop that looks up in it.

  XLA's CPU compiler converts a bfloat16 table to read rows of it, and moves the conversion out of the loop.
  """

  def in_loop(table, rows):
    table, rows = jax.lax.optimization_barrier((table, rows))
    return jnp.take(table, rows, axis=0)

  return jax.lax.platform_dependent(table, rows, cpu=in_loop, default=functools.partial(jnp.take, axis=0))


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
