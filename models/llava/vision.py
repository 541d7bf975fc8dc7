"""Vision tower of LLaVA: CLIP's, up to the hidden states that are used. CLIP's text tower has the same blocks.

Axes: P tiles (or texts), T tokens of each (in a tile, the class token first), C channels, N heads, d head dim, D hidden
size, W = D * feature layers.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

from einops import rearrange
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from models import sharding
from models.attention import attention
from models.cpu import dot_general


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """Shapes of a stack of blocks; names follow the checkpoints' config.json.

  Attributes:
    causal: whether a token sees only itself and those before it.
  """

  num_hidden_layers: int
  hidden_size: int
  intermediate_size: int
  num_attention_heads: int
  layer_norm_eps: float = 1e-5
  causal: ClassVar[bool] = False


@dataclasses.dataclass(frozen=True)
class VisionConfig(EncoderConfig):
  """Shapes of the tower.

  Attributes:
    feature_layers: hidden states that are output, concatenated; 0 is the input of the first layer.
    keep_class_token: whether its features are output too, before those of the patches.
  """

  image_size: int = 336
  patch_size: int = 14
  num_channels: int = 3
  feature_layers: tuple[int, ...] = (23,)
  keep_class_token: bool = False

  @property
  def side(self) -> int:
    """Patches along a tile's side."""
    return self.image_size // self.patch_size

  @property
  def tokens(self) -> int:
    """Visual tokens of a tile."""
    return self.side**2 + self.keep_class_token

  @property
  def tile_shape(self) -> tuple[int, int, int]:
    """A tile's channels, height and width in pixels."""
    return self.num_channels, self.image_size, self.image_size


def layer_norm(config: EncoderConfig) -> nn.LayerNorm:
  """The norm that is used everywhere in a tower."""
  return nn.LayerNorm(config.layer_norm_eps, use_fast_variance=False)


def _sinusoids(key, shape, dtype):
  """[1 + side^2, D] sines and cosines of each patch's row and column, so that untrained embeddings hold neighbourhoods."""
  del key
  places, size = shape
  side = math.isqrt(places - 1)
  angles = np.arange(side)[:, None] * 100.0 ** (-np.arange(size // 4) / (size // 4))
  waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
  row, column = np.divmod(np.arange(places - 1), side)
  table = np.zeros(shape)
  table[1:, : size // 4 * 4] = np.concatenate([waves[row], waves[column]], axis=-1)
  return jnp.asarray(table, dtype)


class PatchEmbedding(nn.Module):
  """Class token, patches, and their learned position embeddings."""

  config: VisionConfig

  def setup(self):
    config = self.config
    self.class_embedding = self.param("class_embedding", nn.initializers.normal(), (config.hidden_size,))
    # The checkpoints' Conv2d with stride = kernel.
    self.patch_embedding = nn.Dense(config.hidden_size, use_bias=False, dot_general=dot_general)
    self.position_embedding = nn.Embed(config.side**2 + 1, config.hidden_size, embedding_init=_sinusoids)

  def __call__(self, tiles):
    side, size = self.config.side, self.config.patch_size
    tiles = tiles[..., : side * size, : side * size].astype(self.class_embedding.dtype)
    patches = rearrange(tiles, "P C (h i) (w j) -> P (h w) (C i j)", i=size, j=size)
    first = jnp.broadcast_to(self.class_embedding, (tiles.shape[0], 1, self.config.hidden_size))
    x = jnp.concatenate([first, self.patch_embedding(patches)], axis=1)
    return x + self.position_embedding(jnp.arange(x.shape[1]))


class VisionAttention(nn.Module):
  """Self-attention among a tile's tokens."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    dense = lambda: nn.Dense(self.config.hidden_size, dot_general=dot_general)
    self.q_proj, self.k_proj, self.v_proj, self.out_proj = dense(), dense(), dense(), dense()

  def __call__(self, x):
    heads = self.config.num_attention_heads
    split = lambda y: sharding.heads(rearrange(y, "P T (N d) -> P T N d", N=heads), self.mesh)
    query, key, value = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
    out = attention(query, key, value, causal=self.config.causal, mesh=self.mesh)
    return self.out_proj(rearrange(sharding.heads(out, self.mesh), "P T N d -> P T (N d)"))

  def class_weights(self, x):
    """[P, T] float32 attention of the first token, the class token, to every token; mean over heads."""
    split = lambda y: rearrange(y, "P T (N d) -> P T N d", N=self.config.num_attention_heads).astype(jnp.float32)
    query, key = split(self.q_proj(x[:, :1])), split(self.k_proj(x))
    logits = jnp.einsum("PQNd,PTNd->PNQT", query, key) / query.shape[-1] ** 0.5
    return jax.nn.softmax(logits, axis=-1).mean(axis=1)[:, 0]


class VisionMLP(nn.Module):
  """fc2(quick_gelu(fc1(x))), with quick_gelu(x) = x sigmoid(1.702 x)."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.fc1 = nn.Dense(self.config.intermediate_size, dot_general=dot_general)
    self.fc2 = nn.Dense(self.config.hidden_size, dot_general=dot_general)

  def __call__(self, x):
    x = sharding.width(self.fc1(x), self.mesh)
    return self.fc2(x * nn.sigmoid(1.702 * x))


class VisionBlock(nn.Module):
  """Pre-norm transformer block."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.layer_norm1 = layer_norm(self.config)
    self.self_attn = VisionAttention(self.config, self.mesh)
    self.layer_norm2 = layer_norm(self.config)
    self.mlp = VisionMLP(self.config, self.mesh)

  def __call__(self, x):
    x = sharding.residual(x + self.self_attn(self.layer_norm1(x)), self.mesh)
    return sharding.residual(x + self.mlp(self.layer_norm2(x)), self.mesh)


class Encoder(nn.Module):
  """The stack of blocks."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.layers = [VisionBlock(self.config, self.mesh) for _ in range(self.config.num_hidden_layers)]

  def __call__(self, x):
    """[P, T, D] to all hidden states, beginning with the input. XLA does not compute those that nobody reads."""
    states = [x]
    for layer in self.layers:
      states.append(layer(states[-1]))
    return states


class VisionTower(nn.Module):
  """Tiles to features; attribute names are the checkpoints'."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.embeddings = PatchEmbedding(self.config)
    self.pre_layrnorm = layer_norm(self.config)
    self.encoder = Encoder(self.config, self.mesh)
    self.post_layernorm = layer_norm(self.config)

  def __call__(self, tiles: jax.Array) -> jax.Array:
    """Encodes tiles.

    Args:
      tiles: [P, C, H, W] normalized pixels, H = W = image_size.

    Returns:
      [P, T, W] the chosen hidden states, T with or without the class token.
    """
    return self.choose(self.states(tiles))

  def states(self, tiles: jax.Array) -> list[jax.Array]:
    """All hidden states of tiles, [P, 1 + patches, D] each, beginning with the input of the first layer."""
    return self.encoder(sharding.residual(self.pre_layrnorm(self.embeddings(tiles)), self.mesh))

  def choose(self, states: list[jax.Array]) -> jax.Array:
    """The result of a call, from `states`."""
    if self.is_initializing():
      self.post_layernorm(states[-1])  # a parameter of the checkpoints that features do not depend on
    return self._tokens(jnp.concatenate([states[layer] for layer in self.config.feature_layers], axis=-1))

  def saliency(self, states: list[jax.Array]) -> jax.Array:
    """[P, T] float32 attention that each token gets from the class token in the layer that made the last of the features."""
    layer = max(self.config.feature_layers[-1], 1) - 1
    block = self.encoder.layers[layer]
    return self._tokens(block.self_attn.class_weights(block.layer_norm1(states[layer])))

  def _tokens(self, x):
    return x if self.config.keep_class_token else x[:, 1:]
