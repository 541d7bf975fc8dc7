"""Questions that see few visual tokens at first, and more as they are answered.

A model that is not told where to look does not find the answer among 144 tokens, and learns little from guessing. It does
learn to read the only tokens that it sees, and then to tell them from more and more others. Each kind of question has its
own pace. The curriculum is part of the state of training, so that an interrupted run resumes with it.

Axes: B pictures, Q questions per picture, V visual tokens, K kinds of questions.
"""

from __future__ import annotations

from flax import struct
import jax
import jax.numpy as jnp

from experiments.digits import batches
from experiments.digits import task

# Share of right answers, a moving mean, from which on questions see more.
_ENOUGH = 0.5
_MEMORY = 0.95
_GROWTH = 1.02


@struct.dataclass
class Curriculum:
  """Where a run is.

  Attributes:
    step: [] int32, steps so far.
    right: [K] float32, moving mean of the share of right answers.
    others: [K] float32, how many visual tokens a question sees besides those that it is about.
  """

  step: jax.Array
  right: jax.Array
  others: jax.Array


def start() -> Curriculum:
  """The first step: questions see what they are about, and nothing else."""
  kinds = len(task.KINDS)
  return Curriculum(step=jnp.zeros([], jnp.int32), right=jnp.zeros([kinds]), others=jnp.zeros([kinds]))


def hide(curriculum: Curriculum, batch: batches.Batch) -> batches.Batch:
  """A batch whose questions see what the curriculum allows: first, other coloured digits; last, empty cells.

  Args:
    curriculum: that of the step, which also chooses among tokens that show as much.
    batch: of `batches.make_batch`.
  """
  about, colors = batch.about > 0, batch.cells[:, None, :, 1]
  late = jnp.where(colors < batches.GREY, 1, jnp.where(colors == batches.GREY, 2, 3))
  order = jnp.where(about, 0, late) + jax.random.uniform(jax.random.key(curriculum.step), about.shape)
  rank = order.argsort(axis=-1).argsort(axis=-1)
  most = about.sum(axis=-1) + curriculum.others[batch.kinds]
  return batch.replace(seen=rank < most[..., None])


def advance(curriculum: Curriculum, batch: batches.Batch, right: jax.Array) -> Curriculum:
  """The next step.

  Args:
    curriculum: of this step.
    batch: of this step.
    right: [B, Q] bool, the questions that were answered correctly.
  """
  asked = jax.nn.one_hot(batch.kinds, len(task.KINDS))
  count = asked.sum(axis=(0, 1))
  share = (asked * right[..., None]).sum(axis=(0, 1)) / jnp.maximum(count, 1)
  mean = jnp.where(count > 0, _MEMORY * curriculum.right + (1 - _MEMORY) * share, curriculum.right)
  more = jnp.minimum(_GROWTH * curriculum.others + (_GROWTH - 1), batch.about.shape[-1])
  return Curriculum(curriculum.step + 1, mean, jnp.where(mean >= _ENOUGH, more, curriculum.others))
