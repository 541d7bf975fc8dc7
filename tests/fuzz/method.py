"""Cases of hawk_jax: counts, importance, budgets, selectors."""

from __future__ import annotations

import functools
import math
import pathlib
import tempfile

import jax
import numpy as np

from hawk_jax import budgets
from hawk_jax import importance
from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from hawk_jax import scoring
from hawk_jax import selectors
from tests.fuzz import spoil

BATCH, SLOTS, KEEP, WIDTH, HEADS = 3, 16, 8, 6, 4


def counts(rng: np.random.Generator) -> None:
  """`keep_counts` against its formula."""
  arguments = dict(
    visual_counts=rng.integers(0, 3000, rng.integers(1, 5)),
    keep_ratio=spoil.choose(rng, (None, float(rng.uniform(0.001, 1.0)))),
    keep_count=spoil.choose(rng, (None, None, int(rng.integers(1, 4000)))),
    rounding=spoil.choose(rng, ("ceil", "floor")),
  )
  if rng.integers(4):
    arguments = spoil.some(rng, arguments)
  visual = arguments.pop("visual_counts", [5])
  kept = budgets.keep_counts(visual, **arguments)
  ratio, most = arguments.get("keep_ratio"), arguments.get("keep_count")
  cut = math.floor if arguments.get("rounding") == "floor" else math.ceil
  for count, got in zip(np.asarray(visual).tolist(), kept.tolist(), strict=True):
    wanted = count if ratio is None and most is None else most if ratio is None else max(cut(count * ratio), 1)
    assert got == min(count, wanted) and 0 <= count < 2**31, (count, got)


def head_importance(rng: np.random.Generator) -> None:
  """Weights from ablation drops, files, presets and arrays."""
  weights = rng.random(HEADS)
  kind = rng.integers(3)
  if kind == 0:
    drops = spoil.array(rng, rng.standard_normal([HEADS, 3]))
    out = importance.from_ablation(drops)
    assert len(out) == len(drops)
  elif kind == 1:
    with tempfile.TemporaryDirectory() as directory:
      path = pathlib.Path(directory) / "weights.json"
      path.write_bytes(spoil.text(rng, {"head_importance": weights.tolist(), "drops": [[1.0, 2.0]]}))
      source = spoil.choose(rng, (path, path, path, str(path), "uniform", "preset:qwen2.5-vl-7b", *spoil.JUNK))
      out = importance.load(source, spoil.choose(rng, (HEADS, HEADS, None, *spoil.JUNK)))
  else:
    out = importance.validate(spoil.array(rng, weights), HEADS)
    assert out.shape[-1] == HEADS and (out.max(-1) > 0).all()
    out = out / out.max()
    out /= out.sum()
  assert out.dtype == np.float32 and np.isfinite(out).all() and (out >= 0).all() and abs(out.sum() - 1) < 1e-3, out


def plans(rng: np.random.Generator) -> None:
  """`Pruning` and its plan: settings, importance, scores and seeds."""
  prompt = _prompt(rng)
  settings = dict(
    keep_ratio=spoil.choose(rng, (None, 0.5, 1.0)),
    keep_count=None,
    keep_mass=spoil.choose(rng, (None, 0.5)),
    rounding="ceil",
    normalization=spoil.choose(rng, ("l2", "none")),
    selector=spoil.choose(rng, ("hawk", "hawk", "cdpruner", "fastv")),
    prune_layer=2,
  )
  arrays = dict(
    head_importance=rng.random(HEADS), scores=rng.standard_normal([BATCH, SLOTS]), seeds=rng.integers(0, 9, BATCH)
  )
  kind = rng.integers(3)
  if kind == 0:
    settings = spoil.some(rng, settings)
  elif kind == 1:
    arrays = spoil.some(rng, arrays)
  plan = pruning.Pruning(**settings).plan(prompt, HEADS, **arrays)
  visual = np.asarray(prompt.visual_counts)
  if plan is None:
    return
  assert plan.head_importance.shape in ((HEADS,), (BATCH, HEADS)) and np.isfinite(plan.head_importance).all()
  assert ((plan.counts >= np.minimum(visual, 1)) & (plan.counts <= np.minimum(visual, plan.keep_count))).all()
  assert plan.scores is None or np.isfinite(plan.scores).all()
  assert plan.seeds.shape == (BATCH,)


def picks(rng: np.random.Generator) -> None:
  """Every selector, on features and scores of any size."""
  name = spoil.choose(rng, tuple(selectors.SELECTORS))
  mask = rng.random([BATCH, SLOTS]) < rng.uniform(0, 1, [BATCH, 1])
  features, scores = _extreme(rng, [BATCH, SLOTS, WIDTH]), _extreme(rng, [BATCH, SLOTS])
  wanted = rng.integers(-1, KEEP + 1, BATCH).astype(np.int32)
  needed = {
    "places": rng.integers(0, SLOTS, [BATCH, SLOTS]).astype(np.int32),
    "curve": np.cumsum(mask, axis=1, dtype=np.int32) - 1,
    "question": _extreme(rng, [BATCH, WIDTH]),
  }
  if rng.integers(4) == 0:  # rules that need one of them refuse
    needed = {}
  seeds = rng.integers(0, 2**32, BATCH, np.uint32)
  kept = np.asarray(_select(name)(features, scores, mask, wanted, seeds, keep_count=KEEP, **needed))
  assert kept.shape == (BATCH, KEEP)
  for row, real, count in zip(kept, mask, np.clip(wanted, 0, mask.sum(1))):
    assert (np.diff(row[:count]) > 0).all() and real[row[:count]].all() and (row[count:] == -1).all(), (name, row, count)
  if name == "hawk" and np.isfinite(scores).all():
    # Beside numbers beyond 1e15, very small ones count as 0.
    for row, real, numbers, count in zip(
      kept, mask, np.asarray(scoring.bounded(scores, mask)), np.clip(wanted, 0, mask.sum(1))
    ):
      numbers = np.where(np.abs(numbers) < np.finfo(np.float32).tiny, 0, numbers)  # XLA on CPUs takes them for 0
      order = sorted(np.flatnonzero(real), key=lambda slot: (-numbers[slot], slot))  # noqa: B023
      assert sorted(order[:count]) == row[:count].tolist(), (numbers, row)


def masses(rng: np.random.Generator) -> None:
  """Adaptive budgets, on scores of any size."""
  mask = rng.random([BATCH, SLOTS]) < rng.uniform(0, 1, [BATCH, 1])
  held = np.asarray(_mass_counts()(_extreme(rng, [BATCH, SLOTS]), mask, np.float32(rng.uniform(0, 1))))
  real = mask.sum(1)
  assert ((held >= np.minimum(real, 1)) & (held <= real)).all(), (held, real)


@functools.cache
def _select(name):
  return jax.jit(selectors.SELECTORS[name], static_argnames="keep_count")


@functools.cache
def _mass_counts():
  return jax.jit(budgets.mass_counts)


def _extreme(rng, shape) -> np.ndarray:
  """Float32 numbers, some of which are very large, very small, or none at all."""
  values = rng.standard_normal(shape) * 10.0 ** spoil.choose(rng, (0, 0, 0, -42, -30, 10, 20, 30, 37))
  if rng.integers(2):
    special = spoil.choose(rng, (np.nan, np.inf, -np.inf, 0.0, 3e38, -3e38, 1e-45))
    values = np.where(rng.random(shape) < spoil.choose(rng, (0.05, 0.5, 1.0)), special, values)
  return values.astype(np.float32)


def _prompt(rng) -> prompt_lib.Prompt:
  """Prompts of two text tokens and some visual ones, NumPy."""
  order = np.full([BATCH, SLOTS], -1, np.int32)
  for row, count in enumerate(rng.integers(0, SLOTS + 1, BATCH)):
    order[row, :count] = np.arange(2, 2 + count)
  text = np.tile(np.arange(2, dtype=np.int32), [BATCH, 1])
  zeros = np.zeros([BATCH, SLOTS], np.int32)
  return prompt_lib.Prompt(
    text_tokens=text,
    text_order=text,
    text_positions=text[..., None],
    query_mask=np.ones([BATCH, 2], bool),
    visual_slots=zeros,
    visual_order=order,
    visual_positions=zeros[..., None],
    visual_places=zeros,
    next_position=(order >= 0).sum(1).astype(np.int32) + 2,
  )


SUBJECTS = {"counts": counts, "importance": head_importance, "plans": plans, "selectors": picks, "masses": masses}
