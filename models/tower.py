"""A stage inside the vision tower: some blocks run on all visual tokens, and the others only on a share of them.

Every cell, which is a temporal slice or a tile, keeps its own share, so that no picture depends on another. What is removed
either stays removed, or gets a last state back that is estimated from the tokens that were kept (`restore`).

A score is an entry of `SCORES` and a function of what the first blocks made of the tokens.

Axes: I cells, L tokens of a cell, K of them kept, F feature rows, B prompts, V visual slots, D hidden size, E values of a
token, C values by which tokens are compared.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from hawk_jax import budgets
from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from hawk_jax import schedule as schedule_lib
from hawk_jax.buckets import bucket

# Kept tokens from which the state of a removed one is estimated (IPCV).
NEIGHBORS = 10


@struct.dataclass
class TowerPlan:
  """A tower stage for one batch. Arrays are data; the rest is static.

  Attributes:
    layer: blocks that run before the stage.
    score: what ranks the tokens, a name of `SCORES`.
    restore: whether removed tokens get a last state back.
    keep_count: bound on `counts`.
    total: bound on the sum of `counts`.
    counts: [I] int32, tokens that each cell keeps.
    plan: how tokens are scored by the decoder's first layer, for `lens`; else None.
  """

  layer: int = struct.field(pytree_node=False)
  score: str = struct.field(pytree_node=False)
  restore: bool = struct.field(pytree_node=False)
  keep_count: int = struct.field(pytree_node=False)
  total: int = struct.field(pytree_node=False)
  counts: ArrayLike
  plan: pruning.Plan | None = None


def make_plan(
  stage: schedule_lib.Stage, settings: pruning.Pruning, cells: np.ndarray, number: int, head_importance: np.ndarray
) -> TowerPlan:
  """Plans a tower stage on the host.

  Args:
    stage: with a layer and a score.
    settings: how tokens are scored, and how counts are rounded.
    cells: [F] int, the cell of every feature row; -1: none.
    number: I, of cells, empty ones included.
    head_importance: [H] or [B, H] float32, for `lens`.
  """
  assert stage.layer is not None and stage.score is not None
  sizes = np.bincount(cells[cells >= 0], minlength=number)
  counts = budgets.keep_counts(sizes, keep_ratio=stage.share, rounding=settings.rounding)
  by_question = stage.score == "lens"
  scored = pruning.Pruning(normalization=settings.normalization, head_weights=settings.head_weights)
  return TowerPlan(
    layer=stage.layer,
    score=stage.score,
    restore=stage.restore,
    keep_count=min(bucket(int(counts.max()), pruning.KEEP_MINIMUM), int(sizes.max())),
    total=bucket(int(counts.sum())),
    counts=counts,
    plan=pruning.Plan(0, scored, head_importance) if by_question else None,
  )


def limits(plan: TowerPlan, prompt: prompt_lib.Prompt, cells: np.ndarray) -> np.ndarray | None:
  """[B] int32, visual tokens that a tower stage leaves of each prompt at most; None: all of them, restored.

  Args:
    plan: of `make_plan`.
    prompt: the batch, NumPy.
    cells: as in `make_plan`.
  """
  if plan.restore:
    return None
  left = np.asarray(plan.counts)

  def of_row(slots, mask):
    here = cells[slots[mask]]
    return np.minimum(np.bincount(here[here >= 0], minlength=len(left)), left).sum() + (here < 0).sum()

  rows = zip(np.asarray(prompt.visual_slots), np.asarray(prompt.visual_mask))
  return np.asarray([of_row(slots, mask) for slots, mask in rows], np.int32)


@dataclasses.dataclass(frozen=True)
class TowerStage:
  """What `encode` needs for a stage.

  Attributes:
    plan: of `make_plan`.
    lens: [F, D] visual tokens to [F] float32 scores by the question.
  """

  plan: TowerPlan
  lens: Callable[[jax.Array], jax.Array]

  def scores(self, tokens: Callable[[], jax.Array], before: jax.Array, after: jax.Array) -> jax.Array:
    """[F] float32, larger for tokens that should go on.

    Args:
      tokens: makes [F, D] visual tokens of the states after the stage's last block, as if the tower ended there.
      before: [F, ..., E] states that entered the stage's last block.
      after: [F, ..., E] states that left it.
    """
    return SCORES[self.plan.score](Seen(tokens, before, after, self.lens))


@dataclasses.dataclass(frozen=True)
class Seen:
  """What the score of a tower stage can read; see `TowerStage.scores`."""

  tokens: Callable[[], jax.Array]
  before: jax.Array
  after: jax.Array
  lens: Callable[[jax.Array], jax.Array]


def lens(seen: Seen) -> jax.Array:
  """HAWK's fused score of the tokens that the tower would have made if it ended at the stage."""
  return seen.lens(seen.tokens())


def change(seen: Seen) -> jax.Array:
  """How much the last block changed a token (IPCV): the L2 norm of the difference, mean over a token's patches."""
  difference = (seen.after - seen.before).astype(jnp.float32)
  return jnp.linalg.norm(difference, axis=-1).reshape(len(difference), -1).mean(axis=1)


SCORES: dict[str, Callable[[Seen], jax.Array]] = {"lens": lens, "change": change}


def make_lens(model: Any, prompt: prompt_lib.Prompt, plan: pruning.Plan) -> Callable[[jax.Array], jax.Array]:
  """The lens of a batch: a row has the largest score that any visual token of any prompt has from it.

  Args:
    model: a bound port.
    prompt: the batch.
    plan: how tokens are scored.
  """

  def look(tokens: jax.Array) -> jax.Array:
    scores = model.fused_scores(prompt, model.as_features(tokens), plan)
    rows = jnp.where(prompt.visual_mask, prompt.visual_slots, len(tokens))
    return jnp.full(len(tokens), -jnp.inf).at[rows].max(scores, mode="drop")

  return look


def restore(early: jax.Array, late: jax.Array, kept: jax.Array, real: jax.Array, shown: jax.Array) -> jax.Array:
  """Last states of all tokens of each cell (IPCV): a removed token changes as its nearest kept neighbours do on average.

  Near is a large cosine between what two tokens showed at the stage.

  Args:
    early: [I, L, E] states at the stage.
    late: [I, K, E] last states of the tokens kept.
    kept: [I, K] int32 indices into L, -1 in unused slots.
    real: [I, L] bool, True on tokens.
    shown: [I, L, C] by which tokens are compared.

  Returns:
    [I, L, E] in the dtype of `late`; kept tokens have exactly their own last states.
  """
  slots = jnp.maximum(kept, 0)
  used = kept >= 0
  rows = jax.vmap(lambda values, index: values[index])
  shown = shown.astype(jnp.float32)
  unit = shown / jnp.maximum(jnp.linalg.norm(shown, axis=-1, keepdims=True), 1e-12)
  cosines = jnp.einsum("ILC,IKC->ILK", unit, rows(unit, slots))
  found, nearest = jax.lax.top_k(jnp.where(used[:, None], cosines, -jnp.inf), min(NEIGHBORS, kept.shape[1]))
  share = jnp.where(jnp.isfinite(found), 1.0, 0.0)
  share /= jnp.maximum(share.sum(axis=-1, keepdims=True), 1.0)
  put = jax.vmap(jax.vmap(lambda index, share: jnp.zeros(kept.shape[1]).at[index].add(share)))
  moved = jnp.where(used[..., None], late - rows(early, slots), 0)
  # As a product, since gathering the neighbours would copy every state several times.
  change = jnp.einsum("ILK,IKE->ILE", put(nearest, share).astype(moved.dtype), moved)
  estimate = early + jnp.where(real[..., None], change, 0)
  give = jax.vmap(lambda states, index, values: states.at[index].set(values, mode="drop"))
  return give(estimate.astype(late.dtype), jnp.where(used, kept, early.shape[1]), late)
