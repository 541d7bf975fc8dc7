"""The decoder that every port shares: a Qwen-, LLaMA- or Mistral-style transformer with an explicit key/value cache.

Axes: B batch, T tokens, S cache length, N query heads, G key/value heads, d head dim, D hidden size, A position axes.
"""

from __future__ import annotations

import dataclasses
import functools

from einops import rearrange
from flax import linen as nn
from flax import struct
import jax
import jax.numpy as jnp

from models import experts
from models import rope
from models import sharding
from models.attention import attention
from models.cache import Cache
from models.cpu import dot_general


@dataclasses.dataclass(frozen=True)
class DecoderConfig:
  """Shapes of a decoder; names follow the checkpoints' config.json."""

  vocab_size: int
  hidden_size: int
  intermediate_size: int
  num_hidden_layers: int
  num_attention_heads: int
  num_key_value_heads: int
  head_dim: int
  max_position_embeddings: int
  rms_norm_eps: float = 1e-6
  rope_theta: float = 1e6
  mrope_section: tuple[int, ...] = ()
  mrope_interleaved: bool = False
  attention_bias: bool = False
  qk_norm: bool = False
  tie_word_embeddings: bool = False
  experts: experts.ExpertsConfig | None = None  # in place of the MLP of every layer

  @classmethod
  def sized(cls, hidden: int, mlp: int, layers: int, heads: int, kv_heads: int, **others) -> DecoderConfig:
    """A decoder by its sizes, and other fields by name; unless `head_dim` is given, the heads divide the hidden size."""
    return cls(
      hidden_size=hidden,
      intermediate_size=mlp,
      num_hidden_layers=layers,
      num_attention_heads=heads,
      num_key_value_heads=kv_heads,
      **{"head_dim": hidden // heads, **others},
    )

  @property
  def position_axes(self) -> int:
    """A, rotary position ids per token."""
    return max(len(self.mrope_section), 1)

  @property
  def frequencies(self) -> rope.Frequencies:
    return rope.text_frequencies(self.head_dim, self.rope_theta, self.mrope_section, self.mrope_interleaved)


@struct.dataclass
class Intervention:
  """What an experiment changes in attention; None changes nothing.

  Attributes:
    head_gate: [layers, B, N] factors on the heads' outputs: 1 keeps a head, 0 ablates it.
    hidden: [B, S] bool, keys that an ablated head does not see; None: an ablated head outputs zeros.
    key_bias: [B, S] float32, added to every head's logits of a key.
    key_bias_from: first layer to which `key_bias` is added.
  """

  head_gate: jax.Array | None = None
  hidden: jax.Array | None = None
  key_bias: jax.Array | None = None
  key_bias_from: int = struct.field(pytree_node=False, default=0)

  def layer(self, number: int) -> Intervention:
    """The part that concerns one layer: `head_gate` is [B, N]."""
    return dataclasses.replace(
      self,
      head_gate=None if self.head_gate is None else self.head_gate[number],
      key_bias=None if number < self.key_bias_from else self.key_bias,
    )


NOTHING = Intervention()


@struct.dataclass
class DeepStack:
  """Features that are added to the visual tokens after each of the first decoder layers (Qwen3-VL).

  Attributes:
    levels: [F, D] for each of those layers.
    slots: [B, T] int32, row of each visual token.
    visual: [B, T] bool, True on visual tokens.
    mesh: what the levels are spread over, or None.
  """

  levels: tuple[jax.Array, ...]
  slots: jax.Array
  visual: jax.Array
  mesh: jax.sharding.Mesh | None = struct.field(pytree_node=False, default=None)

  def add(self, x: jax.Array, layer: int, last: jax.Array | None = None) -> jax.Array:
    """x after a layer, [B, T, D], or [B, 1, D] if only the token `last` [B] of each row is left."""
    if layer >= len(self.levels):
      return x
    slots, visual = self.slots, self.visual
    if last is not None:
      slots, visual = _token(slots, last), _token(visual, last)
    level = sharding.look_up(self.levels[layer].astype(x.dtype), slots, self.mesh)
    return sharding.residual(x + jnp.where(visual[..., None], level, 0), self.mesh)


class Attention(nn.Module):
  """Grouped-query self-attention with rotary positions."""

  config: DecoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    dense = lambda heads, bias: nn.Dense(heads * config.head_dim, use_bias=bias, dot_general=dot_general)
    self.q_proj = dense(config.num_attention_heads, config.attention_bias)
    self.k_proj = dense(config.num_key_value_heads, config.attention_bias)
    self.v_proj = dense(config.num_key_value_heads, config.attention_bias)
    self.o_proj = nn.Dense(config.hidden_size, use_bias=False, dot_general=dot_general)
    if config.qk_norm:
      self.q_norm, self.k_norm = nn.RMSNorm(config.rms_norm_eps), nn.RMSNorm(config.rms_norm_eps)

  def __call__(self, x, rotation, *, mask=None, past=None, last=None, intervention=NOTHING):
    """Attends causally among x, or from x to a cache.

    Args:
      x: [B, T, D].
      rotation: cosine and sine, [B, T, d/2] each.
      mask: bool, broadcastable to [B, T, S], instead of the causal one.
      past: (keys [B, S, G, d], values, index []): x is written at `index` and attends to all that `mask` allows.
      last: [B] int32 instead of a mask: only this token of each row attends, to itself and the tokens before it.
      intervention: a layer's, over the keys.

    Returns:
      [B, T, D], with T = 1 if `last` is given, and the keys and values: x's own, or those of the updated cache.
    """
    queries, turn = x, rotation
    if last is not None:
      queries, turn = _token(x, last), [_token(each, last) for each in rotation]
    query = rope.rotate(self._queries(queries), *turn)
    key = rope.rotate(self._keys(x), *rotation)
    value = self._split(self.v_proj(x))
    if past is not None:
      keys, values, index = past
      key = jax.lax.dynamic_update_slice_in_dim(keys, key.astype(keys.dtype), index, axis=1)
      value = jax.lax.dynamic_update_slice_in_dim(values, value.astype(values.dtype), index, axis=1)
      key, value = sharding.heads(key, self.mesh), sharding.heads(value, self.mesh)
    attend = functools.partial(
      attention,
      query,
      key,
      value,
      bias=intervention.key_bias,
      causal=mask is None and last is None,
      lengths=None if last is None else last + 1,
      mesh=self.mesh,
    )
    out = attend(mask=mask)
    if intervention.head_gate is not None:
      gate = intervention.head_gate[:, None, :, None].astype(out.dtype)
      out *= gate
      if intervention.hidden is not None:
        seen = ~intervention.hidden[:, None]
        out += (1 - gate) * attend(mask=seen if mask is None else mask & seen)
    out = rearrange(sharding.heads(out, self.mesh), "B T N d -> B T (N d)")
    return self.o_proj(out), (key, value)

  def weights(self, x, rotation, at):
    """Attention weights of some tokens.

    Args:
      x: [B, T, D].
      rotation: cosine and sine, [B, T, d/2] each.
      at: [B, Q] indices into T.

    Returns:
      [B, N, Q, T] float32 attention after the causal softmax, rotary positions on.
    """
    query, key = (rope.rotate(project(x), *rotation) for project in (self._queries, self._keys))
    query = jax.vmap(lambda rows, index: rows[index])(query, at)
    query = rearrange(query, "B Q (G M) d -> B Q G M d", G=self.config.num_key_value_heads)
    logits = jnp.einsum("BQGMd,BTGd->BGMQT", query, key, preferred_element_type=jnp.float32)
    before = jnp.arange(x.shape[1]) <= at[..., None]
    logits = jnp.where(before[:, None, None], logits / self.config.head_dim**0.5, -jnp.inf)
    return rearrange(jax.nn.softmax(logits, axis=-1), "B G M Q T -> B (G M) Q T")

  def _queries(self, x):
    """[B, T, N, d] before rotation."""
    query = self._split(self.q_proj(x))
    return self.q_norm(query) if self.config.qk_norm else query

  def _keys(self, x):
    """[B, T, G, d] before rotation."""
    key = self._split(self.k_proj(x))
    return self.k_norm(key) if self.config.qk_norm else key

  def _split(self, x):
    return sharding.heads(rearrange(x, "B T (N d) -> B T N d", d=self.config.head_dim), self.mesh)


class MLP(nn.Module):
  """Gated MLP, down(silu(gate(x)) * up(x)); vision towers may use it too."""

  hidden_size: int
  intermediate_size: int
  use_bias: bool = False
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    dense = functools.partial(nn.Dense, use_bias=self.use_bias, dot_general=dot_general)
    self.gate_proj = dense(self.intermediate_size)
    self.up_proj = dense(self.intermediate_size)
    self.down_proj = dense(self.hidden_size)

  def __call__(self, x):
    return self.down_proj(sharding.width(nn.silu(self.gate_proj(x)) * self.up_proj(x), self.mesh))


class Block(nn.Module):
  """Pre-norm transformer block."""

  config: DecoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.input_layernorm = nn.RMSNorm(config.rms_norm_eps)
    self.self_attn = Attention(config, self.mesh)
    self.post_attention_layernorm = nn.RMSNorm(config.rms_norm_eps)
    if config.experts is None:
      self.mlp = MLP(config.hidden_size, config.intermediate_size, mesh=self.mesh)
    else:
      self.mlp = experts.SparseMLP(config.hidden_size, config.experts, mesh=self.mesh)

  def __call__(self, x, rotation, *, last=None, **attention_args):
    attended, key_value = self.self_attn(self.input_layernorm(x), rotation, last=last, **attention_args)
    x = x if last is None else _token(x, last)
    x = sharding.residual(x + attended, self.mesh)
    return sharding.residual(x + self.mlp(self.post_attention_layernorm(x)), self.mesh), key_value


class Decoder(nn.Module):
  """Token embedding, blocks and final norm; the head belongs to the port."""

  config: DecoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.embed_tokens = nn.Embed(config.vocab_size, config.hidden_size)
    self.layers = [Block(config, self.mesh) for _ in range(config.num_hidden_layers)]
    self.norm = nn.RMSNorm(config.rms_norm_eps)

  def prefill(
    self,
    x: jax.Array,
    positions: jax.Array,
    *,
    last: jax.Array | None = None,
    deepstack: DeepStack | None = None,
    intervention: Intervention = NOTHING,
  ):
    """Runs whole sequences, padded on the right.

    Args:
      x: [B, T, D] embeddings.
      positions: [B, T, A] int32.
      last: [B] int32, the only token of each row whose hidden state is needed; None: all are.
      deepstack: features to add after the first layers, or None.
      intervention: over the T tokens as keys.

    Returns:
      [B, T, D] normed hidden states, with T = 1 if `last` is given, and the keys and values of every layer, [B, T, G, d]
      each.
    """
    x, keys_values = self.blocks(
      x, positions, 0, len(self.layers), last=last, deepstack=deepstack, intervention=intervention
    )
    return self.norm(x), keys_values

  def blocks(
    self,
    x: jax.Array,
    positions: jax.Array,
    start: int,
    stop: int,
    *,
    mask: jax.Array | None = None,
    last: jax.Array | None = None,
    deepstack: DeepStack | None = None,
    intervention: Intervention = NOTHING,
  ):
    """Layers `start` to `stop` of `prefill`, with their keys and values, without the final norm.

    If `last` is given, the final layer computes only keys and values of the other tokens: nothing else of them is read.
    `mask` [B, T, T] bool replaces the causal mask.
    """
    x = sharding.residual(x, self.mesh)
    rotation = rope.rotation(positions, self.config.frequencies)
    keys, values = [], []
    for number in range(start, stop):
      layer, x = sharding.in_turn(self.layers[number], x, self.mesh)
      only = last if number == stop - 1 else None
      x, (key, value) = layer(x, rotation, mask=mask, last=only, intervention=intervention.layer(number))
      if deepstack is not None:
        x = deepstack.add(x, number, only)
      keys.append(key)
      values.append(value)
    return x, (tuple(keys), tuple(values))

  def attention_weights(self, x: jax.Array, positions: jax.Array, at: jax.Array, layer: int) -> jax.Array:
    """[B, N, Q, T] attention weights of the tokens `at` [B, Q] in a layer whose input is x [B, T, D]."""
    block = self.layers[layer]
    return block.self_attn.weights(block.input_layernorm(x), rope.rotation(positions, self.config.frequencies), at)

  def extend(
    self, x: jax.Array, positions: jax.Array, cache: Cache, intervention: Intervention = NOTHING
  ) -> tuple[jax.Array, Cache]:
    """Runs the next tokens of every row against the cache and among themselves, causally.

    Args:
      x: [B, T, D] embeddings; T = 1 is a decoding step.
      positions: [B, T, A] int32.
      cache: with room for T more.
      intervention: over the cache's slots as keys.

    Returns:
      [B, T, D] normed hidden states, and the cache T tokens longer.
    """
    rotation = rope.rotation(positions, self.config.frequencies)
    x, cache = self._extend(sharding.residual(x, self.mesh), rotation, cache, 0, intervention)
    return self.norm(x), cache

  def _extend(self, x, rotation, cache, first, intervention):
    """The layers of a cache, of which the first has the number `first`, and those of the later ones."""
    count = x.shape[1]
    # How many of the new tokens precede a slot; negative in the part that was filled before.
    ahead = jnp.arange(cache.valid.shape[1]) - cache.length
    new = (ahead >= 0) & (ahead <= jnp.arange(count)[:, None])
    mask = cache.valid[:, None] | new
    keys, values = [], []
    for number, (key, value) in enumerate(zip(cache.keys, cache.values), first):
      x, (key, value) = self.layers[number](
        x, rotation, mask=mask, past=(key, value, cache.length), intervention=intervention.layer(number)
      )
      keys.append(key)
      values.append(value)
    later = cache.later
    if later is not None:
      x, later = self._extend(x, rotation, later, first + len(keys), intervention)
    return x, Cache(tuple(keys), tuple(values), mask[:, -1], cache.length + count, later)


def _token(x, index):
  """[B, T, ..] to [B, 1, ..], token index[b] of each row b."""
  return jnp.take_along_axis(x, index.reshape(-1, *(1,) * (x.ndim - 1)), axis=1)
