"""Choosing the next token: greedy, or with temperature, top-k and top-p.

Axes: B batch, V vocabulary.
"""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp

from hawk_jax import checks

_SMALLEST = 1e-30


@struct.dataclass
class Sampling:
  """How tokens are drawn. All fields are arrays, so changing one compiles nothing.

  Attributes:
    temperature: [] float32, divides the logits; above 0.
    top_k: [] int32, only the k most likely tokens; 0: all.
    top_p: [] float32, only the most likely tokens that reach this share together; 1: all.
    seed: [] uint32. Each row draws from a stream of its own, which does not depend on the rest of the batch.
  """

  temperature: jax.Array
  top_k: jax.Array
  top_p: jax.Array
  seed: jax.Array


def make(temperature: float = 0.0, top_k: int = 0, top_p: float = 1.0, seed: int = 0) -> Sampling | None:
  """Checks and packs settings; None at temperature 0, which is greedy.

  Raises:
    ValueError: a setting that is not allowed, by name.
  """
  temperature = checks.real("temperature", temperature, "0 (greedy) or positive and finite", least=0.0)
  checks.whole("top_k", top_k)
  checks.share("top_p", top_p)
  checks.whole("seed", seed)
  if temperature == 0.0:
    return None
  # Beyond these bounds numbers have no effect but to leave float32.
  temperature, top_p = min(max(temperature, _SMALLEST), 1 / _SMALLEST), max(float(top_p), _SMALLEST)
  return Sampling(
    jnp.float32(temperature), jnp.int32(min(top_k, checks.INT32_MAX)), jnp.float32(top_p), jnp.uint32(seed % 2**32)
  )


def choose(logits: jax.Array, step: jax.Array, sampling: Sampling | None) -> jax.Array:
  """The next token of every row.

  Args:
    logits: [B, V] float32.
    step: [] int32, tokens generated before.
    sampling: None: greedy, with ties going to the lower id.

  Returns:
    [B] int32.
  """
  if sampling is None:
    return jnp.argmax(logits, axis=-1).astype(jnp.int32)
  rows, size = logits.shape
  ordered = jnp.sort(logits / sampling.temperature, axis=-1)[:, ::-1]
  by_rank = jnp.arange(size) < jnp.where(sampling.top_k > 0, sampling.top_k, size)
  shares = jax.nn.softmax(jnp.where(by_rank, ordered, -jnp.inf), axis=-1)
  # A token stays while the more likely ones have not reached top_p; the most likely one always does.
  stays = by_rank & (jnp.cumsum(shares, axis=-1) - shares < sampling.top_p)
  least = jnp.min(ordered, axis=-1, where=stays, initial=jnp.inf, keepdims=True)
  logits = jnp.where(logits / sampling.temperature >= least, logits / sampling.temperature, -jnp.inf)
  keys = jax.vmap(lambda row: jax.random.fold_in(jax.random.fold_in(jax.random.key(sampling.seed), row), step))(
    jnp.arange(rows)
  )
  return jax.vmap(jax.random.categorical)(keys, logits).astype(jnp.int32)
