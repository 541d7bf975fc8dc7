"""Vision tower of LLaVA: CLIP's, up to the hidden states that are used.

Axes: P tiles, T tokens of each, the class token first, C channels, D hidden size, W = D * feature layers.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import functools

from flax import linen as nn
import jax
import jax.numpy as jnp

from models import sharding
from models import vision_encoder
from models.cpu import dot_general
from models.tower import TowerStage
from models.vision_encoder import layer_norm
from models.vision_encoder import TowerConfig


@dataclasses.dataclass(frozen=True)
class VisionConfig(TowerConfig):
  """Shapes of the tower.

  Attributes:
    keep_class_token: whether its features are output too, before those of the patches.
  """

  keep_class_token: bool = False

  @property
  def tokens(self) -> int:
    return self.side**2 + self.keep_class_token


class PatchEmbedding(nn.Module):
  """Class token, patches, and their learned position embeddings."""

  config: VisionConfig

  def setup(self):
    config = self.config
    self.class_embedding = self.param("class_embedding", nn.initializers.normal(), (config.hidden_size,))
    # The checkpoints' Conv2d with stride = kernel.
    self.patch_embedding = nn.Dense(config.hidden_size, use_bias=False, dot_general=dot_general)
    self.position_embedding = nn.Embed(
      config.side**2 + 1, config.hidden_size, embedding_init=functools.partial(vision_encoder.sinusoids, first=1)
    )

  def __call__(self, tiles):
    patches = vision_encoder.patches(tiles, self.config).astype(self.class_embedding.dtype)
    first = jnp.broadcast_to(self.class_embedding, (tiles.shape[0], 1, self.config.hidden_size))
    x = jnp.concatenate([first, self.patch_embedding(patches)], axis=1)
    return x + self.position_embedding(jnp.arange(x.shape[1]))


class VisionTower(nn.Module):
  """Tiles to features; attribute names are the checkpoints'."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.embeddings = PatchEmbedding(self.config)
    self.pre_layrnorm = layer_norm(self.config)
    self.encoder = vision_encoder.Encoder(self.config, self.mesh)
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
    return self.encoder(self._embed(tiles))

  def staged(
    self, tiles: jax.Array, stage: TowerStage, tokens: Callable[[list[jax.Array]], jax.Array]
  ) -> tuple[list[jax.Array], jax.Array | None]:
    """`states` with a stage of the tower; see `vision_encoder.Encoder.staged`."""
    return self.encoder.staged(self._embed(tiles), stage, tokens, first=0 if self.config.keep_class_token else 1)

  def choose(self, states: list[jax.Array]) -> jax.Array:
    """The result of a call, from `states`."""
    if self.is_initializing():
      self.post_layernorm(states[-1])  # a parameter of the checkpoints that features do not depend on
    return self._tokens(jnp.concatenate([states[layer] for layer in self.config.feature_layers], axis=-1))

  def saliency(self, states: list[jax.Array]) -> jax.Array:
    """[P, T] float32 attention that each token gets from the class token in the layer that made the last of the features."""
    return self._tokens(self.encoder.received(states, self.config.feature_block, queries=1))

  def _embed(self, tiles):
    return sharding.residual(self.pre_layrnorm(self.embeddings(tiles)), self.mesh)

  def _tokens(self, x):
    return x if self.config.keep_class_token else x[:, 1:]
