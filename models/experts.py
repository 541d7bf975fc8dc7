"""Mixture of experts: a layer whose router sends every token through the few MLPs that suit it, by grouped products.

On a mesh, `tensor` splits the experts: each device computes what its own experts add to all tokens of its rows, and these
parts are summed. No token is dropped, whatever the router chooses.

Axes: N tokens, D hidden size, E experts, K experts per token, I an expert's width.
"""

from __future__ import annotations

import dataclasses

from flax import linen as nn
import jax
import jax.numpy as jnp

from models import sharding
from models.cpu import dot_general


@dataclasses.dataclass(frozen=True)
class ExpertsConfig:
  """Shapes of the layers' experts; names follow the checkpoints' config.json.

  Attributes:
    num_experts: E.
    num_experts_per_tok: K.
    moe_intermediate_size: I.
  """

  num_experts: int
  num_experts_per_tok: int
  moe_intermediate_size: int

  def __post_init__(self):
    if not 0 < self.num_experts_per_tok <= self.num_experts:
      raise ValueError(
        f"config: text_config.num_experts_per_tok is {self.num_experts_per_tok}, must be from 1 to the {self.num_experts} "
        "experts"
      )


class Experts(nn.Module):
  """The kernels of all experts, as Qwen3-VL's checkpoints hold them: gate and up side by side, [in, out] for each expert."""

  hidden_size: int
  config: ExpertsConfig

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array]:
    """[E, D, 2 I] and [E, I, D]."""
    count, width = self.config.num_experts, self.config.moe_intermediate_size
    normal = nn.initializers.normal()
    gate_up = self.param("gate_up_proj", normal, (count, self.hidden_size, 2 * width))
    return gate_up, self.param("down_proj", normal, (count, width, self.hidden_size))


class SparseMLP(nn.Module):
  """Sum of K gated MLPs for every token, weighted by the softmax of the router over those K."""

  hidden_size: int
  config: ExpertsConfig
  mesh: jax.sharding.Mesh | None = None

  def setup(self):
    self.gate = nn.Dense(self.config.num_experts, use_bias=False, dot_general=dot_general)
    self.experts = Experts(self.hidden_size, self.config)

  def __call__(self, x: jax.Array) -> jax.Array:
    """[B, T, D] to the same."""
    shares, chosen = jax.lax.top_k(jax.nn.softmax(self.gate(x).astype(jnp.float32)), self.config.num_experts_per_tok)
    shares = (shares / shares.sum(axis=-1, keepdims=True)).astype(x.dtype)
    if self.mesh is None or self.is_initializing():
      return add_experts(x, shares, chosen, *self.experts())
    return _split(self.mesh, x.shape, self.config)(x, shares, chosen, *self.experts())


def add_experts(
  x: jax.Array,
  shares: jax.Array,
  chosen: jax.Array,
  gate_up: jax.Array,
  down: jax.Array,
  first: int | jax.Array = 0,
  width_axis: str | None = None,
) -> jax.Array:
  """What some experts add to their tokens.

  Tokens are sorted by expert, so that each product is one of groups of rows with a kernel per group.

  Args:
    x: [B, T, D].
    shares: [B, T, K] of the experts of each token.
    chosen: [B, T, K] int32, numbers of these experts.
    gate_up: [E, D, 2 I] kernels of the experts from `first` on; tokens get nothing from others here.
    down: [E, I, D].
    first: number of the first expert.
    width_axis: mesh axis that splits D, within `shard_map`.

  Returns:
    [B, T, D].
  """
  count, per_token = len(gate_up), chosen.shape[-1]
  expert = chosen.reshape(-1) - first
  expert = jnp.where((expert >= 0) & (expert < count), expert, count)  # those that are elsewhere come last
  order = jnp.argsort(expert)
  sizes = jnp.bincount(expert, length=count + 1)[:count].astype(jnp.int32)
  rows = x.reshape(-1, x.shape[-1])[order // per_token]
  hidden = jax.lax.ragged_dot(rows, gate_up, sizes)
  if width_axis is not None:
    hidden = jax.lax.psum(hidden, width_axis)
  gate, up = jnp.split(hidden, 2, axis=-1)
  out = jax.lax.ragged_dot(nn.silu(gate) * up, down, sizes)
  out = jnp.where(jnp.arange(len(out))[:, None] < sizes.sum(), out, 0)  # rows after the last group hold anything
  out = out[jnp.argsort(order)].reshape(*chosen.shape, -1)
  return (out * shares[..., None]).sum(axis=-2)


def _split(mesh, shape, config):
  """`add_experts` on a mesh; like other layers, prompts gather the kernels over `fsdp`, decoding steps do not."""
  decoding = shape[1] == 1
  batch = "data" if decoding else sharding.BATCH
  spec = lambda shape, *axes: sharding.sharding(mesh, shape, *axes).spec
  width = "fsdp" if decoding and sharding.fit(mesh, "fsdp", shape[-1]) else None
  rows = spec(shape, batch, None, width)
  choices = spec(shape[:2], batch)
  experts = sharding.fit(mesh, "tensor", config.num_experts)

  def function(x, shares, chosen, gate_up, down):
    first = jax.lax.axis_index("tensor") * len(gate_up) if experts else 0
    out = add_experts(x, shares, chosen, gate_up, down, first, width)
    return jax.lax.psum(out, "tensor") if experts else out

  where = sharding.P(experts or None, width), sharding.P(experts or None, None, width)
  return jax.shard_map(function, mesh=mesh, in_specs=(rows, choices, choices, *where), out_specs=rows, check_vma=False)
