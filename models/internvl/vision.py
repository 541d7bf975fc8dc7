"""Vision tower of InternVL: InternViT, on tiles of one size.

Axes: P tiles, T tokens of a tile (the class token first), C channels, N heads, d head dim, D hidden size.
"""

from __future__ import annotations

import dataclasses

from einops import rearrange
from flax import linen as nn
import jax
import jax.numpy as jnp

from models import sharding
from models.attention import attention

# Patches that become one visual token, along each side.
MERGE = 2


@dataclasses.dataclass(frozen=True)
class VisionConfig:
  """Shapes of the tower; names follow the checkpoints' config.json.

  Attributes:
    attention_bias: of the query, key and value projections.
    use_qk_norm: whether queries and keys are normalized over their whole width, before it is split into heads.
    norm_type: of the blocks, layer_norm or rms_norm.
    use_mean_pooling: without it, a norm follows the last block.
    feature_layer: the hidden state that is output: -1 is the last one, after that norm; others count from the input of the
      first block, or from the end, and have no norm.
  """

  num_hidden_layers: int
  hidden_size: int
  intermediate_size: int
  num_attention_heads: int
  attention_bias: bool = True
  use_qk_norm: bool = False
  norm_type: str = "layer_norm"
  layer_norm_eps: float = 1e-6
  image_size: int = 448
  patch_size: int = 14
  num_channels: int = 3
  use_mean_pooling: bool = True
  feature_layer: int = -1

  def __post_init__(self):
    if self.image_size % (MERGE * self.patch_size):
      raise ValueError(
        f"config: vision_config.image_size is {self.image_size}, must be a multiple of {MERGE * self.patch_size} pixels, "
        f"{MERGE} patches"
      )

  @property
  def side(self) -> int:
    """Visual tokens along a tile's side."""
    return self.image_size // (MERGE * self.patch_size)

  @property
  def tokens(self) -> int:
    """Visual tokens of a tile."""
    return self.side**2

  @property
  def patches(self) -> int:
    """Patches of a tile."""
    return (MERGE * self.side) ** 2

  @property
  def tile_shape(self) -> tuple[int, int, int]:
    """A tile's channels, height and width in pixels."""
    return self.num_channels, self.image_size, self.image_size


def layer_norm(epsilon: float) -> nn.LayerNorm:
  """A norm with mean and bias."""
  return nn.LayerNorm(epsilon, use_fast_variance=False)


def _block_norm(config):
  return nn.RMSNorm(config.layer_norm_eps) if config.norm_type == "rms_norm" else layer_norm(config.layer_norm_eps)


class PatchEmbeddings(nn.Module):
  """The checkpoints' Conv2d with stride = kernel."""

  config: VisionConfig

  def setup(self):
    self.projection = nn.Dense(self.config.hidden_size)

  def __call__(self, tiles):
    size = self.config.patch_size
    return self.projection(rearrange(tiles, "P C (h i) (w j) -> P (h w) (C i j)", i=size, j=size))


class Embeddings(nn.Module):
  """Class token, patches, and their learned position embeddings."""

  config: VisionConfig

  def setup(self):
    config, normal = self.config, nn.initializers.normal()
    self.cls_token = self.param("cls_token", normal, (1, 1, config.hidden_size))
    self.patch_embeddings = PatchEmbeddings(config)
    self.position_embeddings = self.param("position_embeddings", normal, (1, 1 + config.patches, config.hidden_size))

  def __call__(self, tiles):
    patches = self.patch_embeddings(tiles.astype(self.cls_token.dtype))
    first = jnp.broadcast_to(self.cls_token, (len(tiles), *self.cls_token.shape[1:]))
    return jnp.concatenate([first, patches], axis=1) + self.position_embeddings


class Attention(nn.Module):
  """Self-attention among a tile's tokens."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    dense = lambda: nn.Dense(config.hidden_size, use_bias=config.attention_bias)
    self.q_proj, self.k_proj, self.v_proj = dense(), dense(), dense()
    self.projection_layer = nn.Dense(config.hidden_size)
    if config.use_qk_norm:
      self.q_norm, self.k_norm = nn.RMSNorm(1e-6), nn.RMSNorm(1e-6)  # whatever layer_norm_eps is

  def __call__(self, x):
    query, key = self._query_key(x)
    out = attention(query, key, self._by_head(self.v_proj(x)), mesh=self.mesh)
    return self.projection_layer(rearrange(sharding.heads(out, self.mesh), "P T N d -> P T (N d)"))

  def class_weights(self, x):
    """[P, T] float32 attention of the first token, the class token, to every token; mean over heads."""
    query, key = (y.astype(jnp.float32) for y in self._query_key(x))
    logits = jnp.einsum("PNd,PTNd->PNT", query[:, 0], key) / query.shape[-1] ** 0.5
    return jax.nn.softmax(logits, axis=-1).mean(axis=1)

  def _query_key(self, x):
    query, key = self.q_proj(x), self.k_proj(x)
    if self.config.use_qk_norm:
      query, key = self.q_norm(query), self.k_norm(key)
    return self._by_head(query), self._by_head(key)

  def _by_head(self, y):
    return sharding.heads(rearrange(y, "P T (N d) -> P T N d", N=self.config.num_attention_heads), self.mesh)


class MLP(nn.Module):
  """fc2(gelu(fc1(x))), with the exact gelu."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.fc1 = nn.Dense(self.config.intermediate_size)
    self.fc2 = nn.Dense(self.config.hidden_size)

  def __call__(self, x):
    return self.fc2(nn.gelu(sharding.width(self.fc1(x), self.mesh), approximate=False))


class Block(nn.Module):
  """Pre-norm transformer block, whose two branches have a learned scale each."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.layernorm_before = _block_norm(config)
    self.attention = Attention(config, self.mesh)
    self.layernorm_after = _block_norm(config)
    self.mlp = MLP(config, self.mesh)
    scale = lambda name: self.param(name, nn.initializers.constant(0.1), (config.hidden_size,))
    self.lambda_1, self.lambda_2 = scale("lambda_1"), scale("lambda_2")

  def __call__(self, x):
    x = sharding.residual(x + self.lambda_1 * self.attention(self.layernorm_before(x)), self.mesh)
    return sharding.residual(x + self.lambda_2 * self.mlp(self.layernorm_after(x)), self.mesh)


class Encoder(nn.Module):
  """The stack of blocks."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.layer = [Block(self.config, self.mesh) for _ in range(self.config.num_hidden_layers)]

  def __call__(self, x):
    """[P, T, D] to all hidden states, beginning with the input. XLA does not compute those that nobody reads."""
    states = [x]
    for layer in self.layer:
      states.append(layer(states[-1]))
    return states


class VisionTower(nn.Module):
  """Tiles to features; attribute names are the checkpoints'."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    config = self.config
    self.embeddings = Embeddings(config)
    self.encoder = Encoder(config, self.mesh)
    if not config.use_mean_pooling:
      self.layernorm = layer_norm(config.layer_norm_eps)

  def __call__(self, tiles: jax.Array) -> jax.Array:
    """Encodes tiles.

    Args:
      tiles: [P, C, H, W] normalized pixels, H = W = image_size.

    Returns:
      [P, tokens, MERGE^2 * D], the features of MERGE x MERGE patches for each visual token, row by row.
    """
    return self.choose(self.states(tiles))

  def states(self, tiles: jax.Array) -> list[jax.Array]:
    """All hidden states of tiles, [P, 1 + patches, D] each, beginning with the input of the first layer."""
    return self.encoder(sharding.residual(self.embeddings(tiles), self.mesh))

  def choose(self, states: list[jax.Array]) -> jax.Array:
    """The result of a call, from `states`."""
    config = self.config
    last = states[-1] if config.use_mean_pooling else self.layernorm(states[-1])
    return self._shuffle(last if config.feature_layer == -1 else states[config.feature_layer])

  def saliency(self, states: list[jax.Array]) -> jax.Array:
    """[P, tokens] float32 attention from the class token in the layer that made the features; mean over patches."""
    layer = max(range(len(states))[self.config.feature_layer], 1) - 1
    block = self.encoder.layer[layer]
    weights = block.attention.class_weights(block.layernorm_before(states[layer]))
    return self._shuffle(weights[..., None]).mean(axis=-1)

  def _shuffle(self, x):
    side = self.config.side
    return rearrange(x[:, 1:], "P (r a k b) D -> P (r k) (a b D)", r=side, k=side, a=MERGE, b=MERGE)
