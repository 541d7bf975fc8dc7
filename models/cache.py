"""The key/value cache of the decoder, an explicit argument and result.

Axes: B batch, T tokens, S cache length, G key/value heads, d head dim.
"""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp

from models import sharding


@struct.dataclass
class Cache:
  """Rotated keys, and values, of successive layers, and how much of the cache is filled.

  Attributes:
    keys: [B, S, G, d] for each layer.
    values: [B, S, G, d] for each layer.
    valid: [B, S] bool, True on slots that hold a real token.
    length: [] int32, slots written so far, the same for every row.
    later: of the layers after these, which hold fewer tokens of the prompt; None: there are no more.
  """

  keys: tuple[jax.Array, ...]
  values: tuple[jax.Array, ...]
  valid: jax.Array
  length: jax.Array
  later: Cache | None = None

  @property
  def nbytes(self) -> int:
    """Bytes of keys and values: 2 * layers * B * S * G * d * bytes per element."""
    here = sum(x.size * x.dtype.itemsize for x in self.keys + self.values)
    return here + (0 if self.later is None else self.later.nbytes)


def make(keys_values, lengths: jax.Array, max_new_tokens: int, mesh=None, later: Cache | None = None) -> Cache:
  """A cache for a prompt and the tokens generated after it.

  Args:
    keys_values: of `models.decoder.Decoder.prefill`, [B, T, G, d] each.
    lengths: [B] real tokens of each row.
    max_new_tokens: slots to add.
    mesh: what the cache is spread over, or None.
    later: of the layers after these, or None.
  """
  keys, values = keys_values
  length = keys[0].shape[1]
  grow = lambda x: sharding.heads(jnp.pad(x, ((0, 0), (0, max_new_tokens), (0, 0), (0, 0))), mesh)
  valid = jnp.arange(length + max_new_tokens) < lengths[:, None]
  return Cache(tuple(map(grow, keys)), tuple(map(grow, values)), valid, jnp.asarray(length, jnp.int32), later)
