"""What XLA's CPU compiler does slowly, done in another way. Other platforms compile what they would without this module.

`python -m experiments.speed.cpu` measures every workaround beside what it replaces; the gains below are its output (2 CPU
cores, 2026-11-21).

| workaround | replaces | gain |
|---|---|---|
| `dot_general` | one row times a weight matrix, as one product | 1.3 times |
| `attend_by_head` | long rows with all heads at once, padding and masked keys included | 1.2 to 2.7 times |
| `kept` | cosines and sines computed again by every head, in one layer | 2.8 times |

Axes: B batch, T queries, S keys, G key/value heads, M query heads per key/value head, d head dim.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import functools
import math

import jax
import jax.numpy as jnp

# Smaller weight matrices stay in a core's caches, where the plain product is as fast.
LEAST_SIZE = 1 << 18
# Logits of a block that stays in a CPU's caches.
CACHED_LOGITS = 1 << 19
# Parts that a row's product is cut into along the contraction.
_PRODUCT_PARTS = 8
# Parts that a long row of attention is cut into.
_ROW_PARTS = 16
# Blocks of fewer queries make slow products.
_LEAST_QUERIES = 64


def dot_general(
  inputs: jax.Array, kernel: jax.Array, dimension_numbers, precision=None, preferred_element_type=None
) -> jax.Array:
  """`jax.lax.dot_general` for `nn.Dense`; a single row times a large matrix is computed in parts along the contraction.

  Args:
    inputs: [..., in].
    kernel: [in, out].
    dimension_numbers: the last axis of inputs against the first of kernel.
    precision: as in `jax.lax.dot_general`.
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
  if math.prod(inputs.shape[:-1]) != 1 or kernel.size < LEAST_SIZE or kernel.shape[0] % _PRODUCT_PARTS:
    return whole(inputs, kernel)

  def in_parts(inputs, kernel):
    rows, columns = kernel.shape
    parts = jnp.einsum(
      "Pk,Pkn->Pn",
      inputs.reshape(_PRODUCT_PARTS, rows // _PRODUCT_PARTS),
      kernel.reshape(_PRODUCT_PARTS, rows // _PRODUCT_PARTS, columns),
      precision=precision,
      preferred_element_type=preferred_element_type,
    )
    return parts.sum(axis=0).reshape(*inputs.shape[:-1], columns)

  return jax.lax.platform_dependent(inputs, kernel, cpu=in_parts, default=whole)


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
