"""Vision tower of LLaVA-OneVision: SigLIP's, up to the hidden states that are used.

Axes: P tiles, T tokens of each, C channels, D hidden size, W = D * feature layers.
"""

from __future__ import annotations

import dataclasses
from typing import ClassVar

from flax import linen as nn
import jax
import jax.numpy as jnp

from models import sharding
from models import vision_encoder
from models.cpu import dot_general
from models.vision_encoder import layer_norm
from models.vision_encoder import TowerConfig


@dataclasses.dataclass(frozen=True)
class VisionConfig(TowerConfig):
  """Shapes of the tower."""

  layer_norm_eps: float = 1e-6
  image_size: int = 384
  feature_layers: tuple[int, ...] = (26,)

  hidden_act: ClassVar[str] = "gelu_pytorch_tanh"


class PatchEmbedding(nn.Module):
  """Patches and their learned position embeddings."""

  config: VisionConfig

  def setup(self):
    config = self.config
    # The checkpoints' Conv2d with stride = kernel.
    self.patch_embedding = nn.Dense(config.hidden_size, dot_general=dot_general)
    self.position_embedding = nn.Embed(config.tokens, config.hidden_size, embedding_init=vision_encoder.sinusoids)

  def __call__(self, tiles):
    table = self.position_embedding(jnp.arange(self.config.tokens))
    return self.patch_embedding(vision_encoder.patches(tiles, self.config).astype(table.dtype)) + table


class VisionTower(nn.Module):
  """Tiles to features; attribute names are the checkpoints'."""

  config: VisionConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.embeddings = PatchEmbedding(self.config)
    self.encoder = vision_encoder.Encoder(self.config, self.mesh)
    self.post_layernorm = layer_norm(self.config)

  def __call__(self, tiles: jax.Array) -> jax.Array:
    """Encodes tiles.

    Args:
      tiles: [P, C, H, W] normalized pixels, H = W = image_size.

    Returns:
      [P, T, W] the chosen hidden states.
    """
    return self.choose(self.states(tiles))

  def states(self, tiles: jax.Array) -> list[jax.Array]:
    """All hidden states of tiles, [P, T, D] each, beginning with the input of the first layer."""
    return self.encoder(sharding.residual(self.embeddings(tiles), self.mesh))

  def choose(self, states: list[jax.Array]) -> jax.Array:
    """The result of a call, from `states`."""
    if self.is_initializing():
      self.post_layernorm(states[-1])  # a parameter of the checkpoints that features do not depend on
    return jnp.concatenate([states[layer] for layer in self.config.feature_layers], axis=-1)

  def saliency(self, states: list[jax.Array]) -> jax.Array:
    """[P, T] float32 attention that each token receives in the layer that made the last of the features.

    From all tokens of its tile: SigLIP has no class token.
    """
    return self.encoder.received(states, self.config.feature_block, queries=self.config.tokens)
