"""What is measured of visual tokens while pictures are encoded; how much a projector's output changes with its input.

Axes: F tokens, C input width, D output width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from flax import linen as nn
import jax
import jax.numpy as jnp

# Random directions, as in the paper, ZOO-Prune (CVPR 2026).
DIRECTIONS = 64


def sensitivity(projector: nn.Module, x: jax.Array, directions: int = DIRECTIONS) -> jax.Array:
  """[...] float32, the mean over Gaussian directions u of the length of J u, where J is the projector's Jacobian at a token.

  The paper takes differences of two outputs, (M(x + hu) - M(x - hu)) / 2h with h = 0.01; this is their limit. All tokens
  share their directions, so that a token's measure does not depend on the tokens beside it.

  Args:
    projector: a bound module from [..., C] to tokens of width D; it may join neighbouring tokens.
    x: [..., C] its input.
    directions: number of directions.
  """
  module, variables = projector.unbind()
  _, derivative = jax.linearize(lambda x: module.apply(variables, x), x)

  def length(key):
    direction = jax.random.normal(key, x.shape[-1:], jnp.float32)
    return jnp.linalg.norm(derivative(jnp.broadcast_to(direction, x.shape).astype(x.dtype)).astype(jnp.float32), axis=-1)

  lengths = jax.lax.map(length, jax.random.split(jax.random.key(0), directions))
  return lengths.mean(axis=0)


def measure(
  names: Sequence[str], projector: nn.Module, x: jax.Array, saliency: Callable[[], jax.Array]
) -> dict[str, jax.Array]:
  """What a port's `encode` measures: by name, [F] float32 of all tokens.

  Args:
    names: `saliency` or `sensitivity`.
    projector: as in `sensitivity`.
    x: as in `sensitivity`.
    saliency: computes the attention that the tokens receive in the vision tower.
  """
  measured = {"saliency": saliency, "sensitivity": lambda: sensitivity(projector, x)}
  return {name: measured[name]().reshape(-1) for name in names}
