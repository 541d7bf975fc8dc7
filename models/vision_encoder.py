"""What the ports of LLaVA share, whose vision towers take tiles of one size: blocks, projector, names and axes.

CLIP's towers, of texts too, and SigLIP's consist of these blocks.

Axes: P tiles (or texts), T tokens of each, C channels, N heads, d head dim, D hidden size, W = D * feature layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
import math
from typing import ClassVar

from einops import rearrange
from flax import linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import numpy as np

from hawk_jax import selectors
from models import sharding
from models import tower
from models.attention import attention
from models.checkpoints.names import Names
from models.cpu import dot_general

# By their names in the checkpoints' config.json.
_ACTIVATIONS = {
  "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
  "gelu_pytorch_tanh": functools.partial(nn.gelu, approximate=True),
}

# Names of the tensors in checkpoints, over time.
NAMES = Names(
  renames=(
    (r"^(model\.)?multi_modal_projector\.linear_", "multi_modal_projector.linear."),
    (r"^(model\.)?vision_tower\.(vision_model\.)?", "vision_tower."),
    (r"^language_model\.lm_head\.", "lm_head."),
    (r"^(model\.language_model|language_model\.model|language_model)\.", "language_model."),
    (r"^model\.", ""),
  ),
  # The names in the hub's files, which every version of transformers reads.
  prefixes={
    "multi_modal_projector.linear.": "multi_modal_projector.linear_",
    "vision_tower.": "vision_tower.vision_model.",
    "language_model.": "language_model.model.",
    "lm_head.": "language_model.lm_head.",
    "image_newline": "image_newline",
  },
)

# How parameters are split over a mesh: those of blocks with the attribute names of CLIP's, and of LLaVA's projector ...
BLOCK_AXES = (
  (r"vision_tower/.*/[qkv]_proj/kernel", P("fsdp", "vision_heads")),
  (r"vision_tower/.*/[qkv]_proj/bias", P("vision_heads")),
  (r"vision_tower/.*/fc1/kernel", P("fsdp", "tensor")),
  (r"vision_tower/.*/fc1/bias", P("tensor")),
  (r"vision_tower/.*/fc2/kernel", P("tensor", "fsdp")),
  (r"multi_modal_projector/linear_1/kernel", P("fsdp", "tensor")),
  (r"multi_modal_projector/linear_1/bias", P("tensor")),
  (r"multi_modal_projector/linear_2/kernel", P("tensor", "fsdp")),
)
# ... and all others of these models. Newlines are vectors as long as the hidden state.
AXES = (
  (r"vision_tower/embeddings/patch_embedding/kernel", P(None, "fsdp")),
  (r"vision_tower/embeddings/position_embedding/embedding", P(None, "fsdp")),
  (r"vision_tower/.*/out_proj/kernel", P("vision_heads", "fsdp")),
  (r"image_newline", P()),
  *BLOCK_AXES,
)


@dataclasses.dataclass(frozen=True)
class EncoderConfig:
  """Shapes of a stack of blocks; names follow the checkpoints' config.json.

  Attributes:
    causal: whether a token sees only itself and those before it.
    hidden_act: activation of the MLP.
  """

  num_hidden_layers: int
  hidden_size: int
  intermediate_size: int
  num_attention_heads: int
  layer_norm_eps: float = 1e-5

  causal: ClassVar[bool] = False
  hidden_act: ClassVar[str] = "quick_gelu"


@dataclasses.dataclass(frozen=True)
class TowerConfig(EncoderConfig):
  """Shapes of a tower.

  Attributes:
    feature_layers: hidden states that are output, concatenated; 0 is the input of the first layer.
  """

  image_size: int = 336
  patch_size: int = 14
  num_channels: int = 3
  feature_layers: tuple[int, ...] = (23,)

  @property
  def side(self) -> int:
    """Patches along a tile's side."""
    return self.image_size // self.patch_size

  @property
  def tokens(self) -> int:
    """Visual tokens of a tile."""
    return self.side**2

  @property
  def features(self) -> int:
    """W, the width of what the tower puts out."""
    return self.hidden_size * len(self.feature_layers)

  @property
  def feature_block(self) -> int:
    """The block that makes the last of the hidden states that are output; the first block, if that is its input."""
    return max(self.feature_layers[-1], 1) - 1

  @property
  def tile_shape(self) -> tuple[int, int, int]:
    """A tile's channels, height and width in pixels."""
    return self.num_channels, self.image_size, self.image_size

  @property
  def patch_shape(self) -> tuple[int, int, int, int]:
    """The patch embedding's kernel, as checkpoints store it: a convolution over whole patches."""
    return self.hidden_size, self.num_channels, self.patch_size, self.patch_size


def feature_layers(layers: int | Sequence[int], depth: int) -> tuple[int, ...]:
  """Hidden states by index, 0 to depth.

  Args:
    layers: a config's vision_feature_layer; negative indices count from the last.
    depth: layers of the tower.

  Raises:
    ValueError: the tower has no such hidden state.
  """
  layers = [layers] if isinstance(layers, int) else layers
  if not layers or not all(type(layer) is int and -depth - 1 <= layer <= depth for layer in layers):
    raise ValueError(f"config: vision_feature_layer is {layers}, the vision tower has hidden states {-depth - 1} to {depth}")
  return tuple(layer % (depth + 1) for layer in layers)


def flops(config: TowerConfig, tokens: int, hidden_size: int) -> float:
  """Floating-point operations of a tile, through the tower up to the last hidden state that is used, and the projector.

  Matrix products only; a multiply-add counts as two.

  Args:
    config: of the tower.
    tokens: in the tower, a class token included.
    hidden_size: of the decoder.
  """
  size, layers = config.hidden_size, max(config.feature_layers)
  block = 2 * tokens * size * (4 * size + 2 * config.intermediate_size) + 4 * tokens**2 * size
  projector = 2 * config.tokens * hidden_size * (size * len(config.feature_layers) + hidden_size)
  return layers * block + 2 * config.side**2 * math.prod(config.patch_shape) + projector


def layer_norm(config: EncoderConfig) -> nn.LayerNorm:
  """The norm that is used everywhere in a tower."""
  return nn.LayerNorm(config.layer_norm_eps, use_fast_variance=False)


def sinusoids(key, shape: tuple[int, int], dtype, first: int = 0) -> jax.Array:
  """[first + side^2, D] initial position embeddings, so that those of untrained towers hold neighbourhoods.

  Args:
    key: unused.
    shape: of the table.
    dtype: of the table.
    first: rows before those of the patches; zeros.
  """
  del key
  places, size = shape[0] - first, shape[1]
  side = math.isqrt(places)
  angles = np.arange(side)[:, None] * 100.0 ** (-np.arange(size // 4) / (size // 4))
  waves = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
  row, column = np.divmod(np.arange(places), side)
  table = np.zeros(shape)
  table[first:, : size // 4 * 4] = np.concatenate([waves[row], waves[column]], axis=-1)
  return jnp.asarray(table, dtype)


def patches(tiles: jax.Array, config: TowerConfig) -> jax.Array:
  """[P, C, H, W] tiles to [P, side^2, C * patch_size^2]; pixels beyond the last whole patch are left out."""
  side, size = config.side, config.patch_size
  return rearrange(tiles[..., : side * size, : side * size], "P C (h i) (w j) -> P (h w) (C i j)", i=size, j=size)


class Attention(nn.Module):
  """Self-attention among a tile's tokens."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    dense = lambda: nn.Dense(self.config.hidden_size, dot_general=dot_general)
    self.q_proj, self.k_proj, self.v_proj, self.out_proj = dense(), dense(), dense(), dense()

  def __call__(self, x, lengths=None):
    """[P, T, D] to [P, T, D]; lengths [P]: real tokens of each tile, where padding follows them."""
    heads = self.config.num_attention_heads
    split = lambda y: sharding.heads(rearrange(y, "P T (N d) -> P T N d", N=heads), self.mesh)
    query, key, value = split(self.q_proj(x)), split(self.k_proj(x)), split(self.v_proj(x))
    out = attention(query, key, value, lengths=lengths, causal=self.config.causal, mesh=self.mesh)
    return self.out_proj(rearrange(sharding.heads(out, self.mesh), "P T N d -> P T (N d)"))

  def received(self, x, queries):
    """[P, T] float32 attention that every token receives from the first `queries` tokens; mean over these and over heads."""
    split = lambda y: rearrange(y, "P T (N d) -> P T N d", N=self.config.num_attention_heads).astype(jnp.float32)

    def in_tile(tile):
      query, key = tile
      logits = jnp.einsum("QNd,TNd->NQT", query, key) / query.shape[-1] ** 0.5
      return jax.nn.softmax(logits, axis=-1).mean(axis=(0, 1))

    # One tile at a time, so that the attention of all is never in memory.
    return jax.lax.map(in_tile, (split(self.q_proj(x[:, :queries])), split(self.k_proj(x))))


class MLP(nn.Module):
  """fc2(hidden_act(fc1(x)))."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.fc1 = nn.Dense(self.config.intermediate_size, dot_general=dot_general)
    self.fc2 = nn.Dense(self.config.hidden_size, dot_general=dot_general)

  def __call__(self, x):
    return self.fc2(_ACTIVATIONS[self.config.hidden_act](sharding.width(self.fc1(x), self.mesh)))


class Block(nn.Module):
  """Pre-norm transformer block."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.layer_norm1 = layer_norm(self.config)
    self.self_attn = Attention(self.config, self.mesh)
    self.layer_norm2 = layer_norm(self.config)
    self.mlp = MLP(self.config, self.mesh)

  def __call__(self, x, lengths=None):
    x = sharding.residual(x + self.self_attn(self.layer_norm1(x), lengths), self.mesh)
    return sharding.residual(x + self.mlp(self.layer_norm2(x)), self.mesh)


class Encoder(nn.Module):
  """The stack of blocks."""

  config: EncoderConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.layers = [Block(self.config, self.mesh) for _ in range(self.config.num_hidden_layers)]

  def __call__(self, x):
    """[P, T, D] to all hidden states, beginning with the input. XLA does not compute those that nobody reads."""
    states = [x]
    for layer in self.layers:
      states.append(layer(states[-1]))
    return states

  def staged(
    self, x: jax.Array, stage: tower.TowerStage, tokens: Callable[[list[jax.Array]], jax.Array], first: int
  ) -> tuple[list[jax.Array], jax.Array | None]:
    """All hidden states, with a stage after which only some tokens of each tile go on.

    Args:
      x: [P, T, D].
      stage: how tokens are scored, and how many are kept.
      tokens: makes [P * (T - first), O] visual tokens of hidden states.
      first: tokens at the beginning that are no visual tokens, and always go on.

    Returns:
      Hidden states, [P, first + K, D] each, K tokens kept of each tile, or [P, T, D] if the stage restores the others; and
      [P * (T - first)] int32, the number among the P * K tokens of each visual token, -1 if it was removed, or None.
    """
    plan, states = stage.plan, [x]
    for block in self.layers[: plan.layer]:
      states.append(block(states[-1]))
    missing, shape = len(self.layers) - plan.layer, (x.shape[0], x.shape[1] - first)
    visual = lambda state: rearrange(state[:, first:], "P T D -> (P T) D")
    scores = stage.scores(lambda: tokens(states + states[-1:] * missing), visual(states[-2]), visual(states[-1]))
    kept = selectors.top_k(scores.reshape(shape), jnp.ones(shape, bool), jnp.asarray(plan.counts), plan.keep_count)
    # The tokens before the visual ones are those with the numbers 0 to first.
    begin = jnp.broadcast_to(jnp.arange(first), (shape[0], first))
    index = jnp.concatenate([begin, first + jnp.maximum(kept, 0)], axis=1)
    take = jax.vmap(lambda state, index: state[index])
    early, lengths = states[-1], first + (kept >= 0).sum(axis=1)
    later = [sharding.residual(take(early, index), self.mesh)]
    for block in self.layers[plan.layer :]:
      later.append(block(later[-1], lengths))
    if not plan.restore:
      places = jnp.where(kept >= 0, kept + shape[1] * jnp.arange(shape[0])[:, None], math.prod(shape))
      rows = jnp.full(math.prod(shape), -1, jnp.int32).at[places].set(jnp.arange(kept.size).reshape(kept.shape), mode="drop")
      return [take(state, index) for state in states[:-1]] + later, rows

    def restored(late):
      everything = tower.restore(early[:, first:], late[:, first:], kept, jnp.ones(shape, bool), early[:, first:])
      return jnp.concatenate([late[:, :first], everything], axis=1)

    return states + list(map(restored, later[1:])), None

  def received(self, states, number, queries):
    """[P, T] float32 attention that the tokens receive in one block, from all hidden states; see `Attention.received`."""
    block = self.layers[number]
    return block.self_attn.received(block.layer_norm1(states[number]), queries)


class Projector(nn.Module):
  """linear_2(gelu(linear_1(x))), with the exact gelu: [..., W] features of a tower to the decoder's width."""

  hidden_size: int
  use_bias: bool = True
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    dense = lambda: nn.Dense(self.hidden_size, use_bias=self.use_bias, dot_general=dot_general)
    self.linear_1, self.linear_2 = dense(), dense()

  def __call__(self, x):
    return self.linear_2(sharding.width(nn.gelu(self.linear_1(x), approximate=False), self.mesh))
