"""What prompts leave behind when they have gone through the decoder, whose layers may have seen different numbers of tokens.

Axes: B batch, L tokens of the compacted prompt, D hidden size.
"""

from __future__ import annotations

from typing import Any

from flax import struct
import jax

from models import cache as cache_lib
from models.cache import Cache


@struct.dataclass
class Segment:
  """What successive decoder layers, between two stages, leave behind.

  Attributes:
    order: [B, L] int32, index in the unpruned prompt of every token in these layers, ascending, -1 on padding.
    lengths: [B] int32, real tokens of each row.
    keys_values: keys and values of every one of these layers.
  """

  order: jax.Array
  lengths: jax.Array
  keys_values: Any


@struct.dataclass
class Prefill:
  """A compacted prompt that went through the decoder.

  Attributes:
    last: [B, D] normed hidden state of each row's last token. Of the other tokens, only keys and values are read again.
    order: [B, L] int32, as in `Segment`, of the last layers.
    lengths: [B] int32, likewise.
    keys_values: likewise; without stages in the decoder, of every layer.
    earlier: the layers before, which held more tokens.
  """

  last: jax.Array
  order: jax.Array
  lengths: jax.Array
  keys_values: Any
  earlier: tuple[Segment, ...] = ()

  def make_cache(self, max_new_tokens: int, mesh=None) -> Cache:
    """A cache for the prompt and `max_new_tokens` tokens after it, spread over a mesh."""
    cache = None
    for part in (self, *reversed(self.earlier)):
      cache = cache_lib.make(part.keys_values, part.lengths, max_new_tokens, mesh, cache)
    assert cache is not None
    return cache

  @property
  def mean_lengths(self) -> jax.Array:
    """[B] real tokens of each row in a layer, mean over the layers."""
    if not self.earlier:
      return self.lengths
    parts = (*self.earlier, self)
    layers = [len(part.keys_values[0]) for part in parts]
    return sum(part.lengths * count for part, count in zip(parts, layers)) / sum(layers)
