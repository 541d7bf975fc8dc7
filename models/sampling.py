"""Choosing the next token: greedy, or with temperature, top-k and top-p.

Axes: B batch, V vocabulary.
"""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp


@struct.dataclass
class Sampling:
  """How tokens are drawn. All fields are arrays: changing one compiles nothing.

  Attributes:
    temperature: [] float32, divides the logits; above 0.
    top_k: [] int32, only the k likeliest tokens; 0: all.
    top_p: [] float32, only the likeliest tokens that reach this share together; 1: all.
    seed: [] uint32. Row b draws from its own stream, which the batch around it does not change.
  """

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  seed: jax.Array


def make(temperature: float, top_k: int, top_p: float, seed: int) -> Sampling | None:
  """Checks and packs settings; None at temperature 0, which is greedy.

  Raises:
    ValueError: a setting outside its range, by name.
  """
  if not 0.0 <= temperature < float("inf"):
    raise ValueError(f"temperature: got {temperature}, must be 0 (greedy) or positive and finite")
  if top_k < 0:
    raise ValueError(f"top_k: got {top_k}, must be 0 (all tokens) or positive")
  if not 0.0 < top_p <= 1.0:
    raise ValueError(f"top_p: got {top_p}, must be in (0, 1]")
  if temperature == 0.0:
    return None
  return Sampling(jnp.float32(temperature), jnp.int32(top_k), jnp.float32(top_p), jnp.uint32(seed % 2**32))


def choose(logits: jax.Array, step: jax.Array, sampling: Sampling | None) -> jax.Array:
  """The next token of every row.

  Args:
    logits: [B, V] float32.
    step: [] int32, tokens generated before.
    sampling: None: greedy, ties to the lower id.

  Returns:
    [B] int32.
  """
  if sampling is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  rows, size = logits.shape
  ordered = jnp.sort(logits / sampling.temperature, axis=-1)[:, ::-1]
  by_rank = jnp.arange(size) < jnp.where(sampling.top_k > 0, sampling.top_k, size)
  shares = jax.nn.softmax(jnp.where(by_rank, ordered, -jnp.inf), axis=-1)
  # A token stays while those likelier than it have not reached top_p; the likeliest always does.
  stays = by_rank & (jnp.cumsum(shares, axis=-1) - shares < sampling.top_p)
  least = jnp.min(ordered, axis=-1, where=stays, initial=jnp.inf, keepdims=True)
  logits = jnp.where(logits / sampling.temperature >= least, logits / sampling.temperature, -jnp.inf)
  keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(jax.random.key(sampling.seed), row), step))(
      jnp.arange(rows))
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
