"""A share of the merged tokens in rows of their own, so that the blocks after a tower stage do no work for the others.

Axes: R rows, W merged tokens per row, U patches per merged token, I temporal slices, L merged tokens per slice, K of them
kept, S new rows, D hidden size.
"""

from __future__ import annotations

from einops import rearrange
from flax import struct
import jax
import jax.numpy as jnp

from hawk_jax import selectors
from models import sharding
from models import tower


@struct.dataclass
class Layout:
  """Which merged tokens attend to one another.

  Attributes:
    slice_slots: [I, L] int32, slots (r * W + w) of each temporal slice; padding last, -1.
    slot_places: [R, W] int32, index of each slot in the flattened slices (i * L + l); 0 on padding.
    window_ids: [R, W] int32, equal in the slots of a window; -1 on padding; None: there are no windows.
    spread: whether a window may go on in the next row, with an id that no other window of any row has.
  """

  slice_slots: jax.Array
  slot_places: jax.Array
  window_ids: jax.Array | None = None
  spread: bool = struct.field(pytree_node=False, default=False)


class Staged:
  """The merged tokens that go on after a stage of the tower.

  Attributes:
    layout: of the new rows. Tokens of a slice come one after the other, window by window.
    rows: [R * W] int32, for each slot its new one, -1 if it was removed; None: all slots have a last state.
  """

  def __init__(self, stage: tower.TowerStage, layout: Layout, before: jax.Array, after: jax.Array, merger, mesh=None):
    """Keeps the tokens of each slice with the highest scores.

    Args:
      stage: how they are scored, and how many are kept.
      layout: of all tokens.
      before: [R, W * U, D] states that entered the stage's last block.
      after: [R, W * U, D] states that left it.
      merger: makes [R * W, O] visual tokens of states.
      mesh: what states are spread over, or None.
    """
    self._stage, self._former, self._early, self._mesh = stage, layout, after, mesh
    self._width = layout.slot_places.shape[1]
    scores = stage.scores(lambda: merger(after), self._by_slot(before), self._by_slot(after))
    self._kept, self._slots, self.layout = choose(layout, scores.reshape(-1), stage.plan, sharding.shards(mesh))
    new = jnp.arange(len(self._slots), dtype=jnp.int32)
    at = jnp.where(self._slots >= 0, self._slots, layout.slot_places.size)
    rows = jnp.full(layout.slot_places.size, -1, jnp.int32).at[at].set(new, mode="drop")
    self.rows = None if stage.plan.restore else rows

  def take(self, x: jax.Array) -> jax.Array:
    """[R, W * U, ..] of all tokens to [S, W * U, ..] of those that go on."""
    return self._by_row(self._by_slot(x)[jnp.maximum(self._slots, 0)])

  def narrow(self, features: jax.Array) -> jax.Array:
    """[R * W, O] features of all slots to those of the slots that have a last state."""
    return features if self._stage.plan.restore else features[jnp.maximum(self._slots, 0)]

  def finish(self, x: jax.Array) -> jax.Array:
    """[S, W * U, D] states of the tokens that went on to those of all tokens, [R, W * U, D], if the stage restores them."""
    if not self._stage.plan.restore:
      return x
    flat = lambda values: rearrange(values, "I L U D -> I L (U D)")
    early = self._by_slot(self._early)[self._former.slice_slots]
    late = self._by_slot(x)[self.layout.slice_slots]
    real = self._former.slice_slots >= 0
    states = tower.restore(flat(early), flat(late), self._kept, real, early.mean(axis=2))
    states = rearrange(states, "I L (U D) -> (I L) U D", D=x.shape[-1])
    return self._by_row(states[self._former.slot_places.reshape(-1)])

  def _by_slot(self, x):
    # Any token may go to any row, so every device has some columns of all of them.
    return rearrange(sharding.constrain(x, self._mesh, None, None, sharding.BATCH), "R (W U) D -> (R W) U D", W=self._width)

  def _by_row(self, x):
    return sharding.residual(rearrange(x, "(R W) U D -> R (W U) D", W=self._width), self._mesh)


def choose(layout: Layout, scores: jax.Array, plan: tower.TowerPlan, shards: int = 1) -> tuple[jax.Array, jax.Array, Layout]:
  """Keeps the tokens of each slice with the highest scores.

  Args:
    layout: of all tokens.
    scores: [R * W] float32, one per slot.
    plan: how many.
    shards: the number of new rows is a multiple of it.

  Returns:
    [I, K] int32, index of each kept token in its slice, -1 on padding; [S * W] int32, the former slot of each new one, -1 on
    padding, which comes last; and the layout of the new rows.
  """
  old, width = layout.slice_slots, layout.slot_places.shape[1]
  kept = selectors.top_k(scores[old], old >= 0, jnp.asarray(plan.counts), plan.keep_count)
  take = lambda values, index: jnp.take_along_axis(values, jnp.maximum(index, 0), axis=1)
  if layout.window_ids is not None:
    numbers = (jnp.arange(len(layout.window_ids))[:, None] * width + layout.window_ids).reshape(-1)
    window = jnp.where(kept >= 0, numbers[take(old, kept)], numbers.size)
    order = jnp.argsort(window, axis=1, stable=True)  # padding stays last
    kept = jnp.take_along_axis(kept, order, axis=1)
  sizes = (kept >= 0).sum(axis=1)
  places = (jnp.cumsum(sizes) - sizes)[:, None] + jnp.arange(kept.shape[1])
  rows = -(-plan.total // width)
  total = -(-rows // shards) * shards * width
  fill = lambda value, values: jnp.full(total, value).at[jnp.where(kept >= 0, places, total)].set(values, mode="drop")
  slots = fill(-1, take(old, kept))
  by_row = lambda values: rearrange(values, "(S W) -> S W", W=width)
  return (
    kept,
    slots,
    Layout(
      slice_slots=jnp.where(kept >= 0, places, -1),
      slot_places=by_row(fill(0, jnp.arange(kept.size).reshape(kept.shape))),
      window_ids=None if layout.window_ids is None else by_row(jnp.where(slots >= 0, numbers[slots], -1)),
      spread=layout.window_ids is not None,
    ),
  )
