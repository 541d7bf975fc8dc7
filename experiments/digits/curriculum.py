"""Questions that see few visual tokens at first, and more as they are answered.

A model that is not told where to look does not find the answer among 144 tokens, and learns little from guessing. It does
learn to read the only tokens that it sees, and then to tell them from more and more others. The curriculum is part of the
state of training, so that an interrupted run resumes with it.

Axes: B pictures, Q questions per picture, V visual tokens.
"""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp

from experiments.digits import batches

# Share of right answers, a moving mean, from which on questions see more.
_ENOUGH = 0.6
_MEMORY = 0.95
_GROWTH = 1.01


@struct.dataclass
class Curriculum:
  """Where a run is.

  Attributes:
    step: [] int32, steps so far.
    right: [] float32, moving mean of the share of right answers.
    others: [] float32, how many visual tokens a question sees besides those that it is about.
  """

  step: jax.Array
  right: jax.Array
  others: jax.Array


def start() -> Curriculum:
  """The first step: questions see what they are about, and nothing else."""
  return Curriculum(step=jnp.zeros([], jnp.int32), right=jnp.zeros([]), others=jnp.zeros([]))


def hide(curriculum: Curriculum, batch: batches.Batch) -> batches.Batch:
  """A batch whose questions see what the curriculum allows: first, other coloured digits; last, empty cells.

  Args:
    curriculum: that of the step, which also chooses among tokens of a kind.
    batch: of `batches.make_batch`.
  """
  about, colors = batch.about > 0, batch.cells[:, None, :, 1]
  kind = jnp.where(colors < batches.GREY, 1, jnp.where(colors == batches.GREY, 2, 3))
  order = jnp.where(about, 0, kind) + jax.random.uniform(jax.random.key(curriculum.step), about.shape)
  rank = order.argsort(axis=-1).argsort(axis=-1)
  return batch.replace(seen=rank < about.sum(axis=-1, keepdims=True) + curriculum.others)


def advance(curriculum: Curriculum, right: jax.Array, count: int) -> Curriculum:
  """The next step.

  Args:
    curriculum: of this step.
    right: [] share of right answers in this step.
    count: V.
  """
  mean = _MEMORY * curriculum.right + (1 - _MEMORY) * right
  more = jnp.minimum(_GROWTH * curriculum.others + (_GROWTH - 1), count)
  return Curriculum(step=curriculum.step + 1, right=mean, others=jnp.where(mean >= _ENOUGH, more, curriculum.others))
