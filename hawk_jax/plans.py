"""The settings of pruning, and what they become for one batch.

`Pruning` holds every setting and checks it; `Pruning.plan` prepares a batch on the host and returns its `Plan`.

Axes: B batch, V visual slots, H query heads.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

from flax import struct
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
import numpy as np

from hawk_jax import budgets
from hawk_jax import checks
from hawk_jax import importance
from hawk_jax import prompt as prompt_lib
from hawk_jax import schedule as schedule_lib
from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax.buckets import bucket

# Keep counts are padded to a bucket of at least this size.
KEEP_MINIMUM = 8
_LARGEST_EXPONENT = 60  # of head weights that are used as they are


@dataclasses.dataclass(frozen=True)
class Pruning:
  """Every setting of pruning, checked when it is made.

  Attributes:
    keep_ratio: share of each prompt's visual tokens to keep, in (0, 1].
    keep_count: number of visual tokens to keep instead. With neither, all tokens are kept.
    keep_mass: adaptive budget: each prompt keeps the fewest tokens that hold this share of its softmaxed scores, in (0, 1],
      and no more than keep_ratio or keep_count allow; see `budgets.mass_counts`.
    rounding: of V * keep_ratio, `ceil` (the authors' code) or `floor` (the paper).
    normalization: of each head's scores: `l2`, `softmax`, `minmax` or `none`; see `scoring.normalize`.
    selector: the rule that picks, a name of `selectors.SELECTORS`.
    prune_layer: decoder layers that run on all tokens before a selector with the stage `decoder` prunes.
    merge: what becomes of tokens that are not kept: `none` drops them, `nearest` averages each into the kept token of the
      largest cosine.
    sink_filter: share of the visual tokens, in [0, 1): those of the largest norms are hidden from the rule and averaged
      into one kept token.
    region_floor: share of the budget that goes to the best token of each of as many regions, in [0, 1].
    head_weights: how heads are weighted: by `importance`, or for each question by `mass`, the share of its attention that a
      head puts on visual tokens, or `entropy`, the inverse entropy of a head's attention; see `scoring.question_weights`.
    rope: whether queries and keys are scored with their rotary positions, which the method leaves out.
    score_layer: decoder layer whose projections score, and before which tokens are removed: the layers before it run on all
      tokens.
    stages: a schedule of several places where tokens are removed, such as `tower@8:0.5, input:0.3`, see
      `hawk_jax.schedule`; empty: tokens are removed once. The share at the input replaces keep_ratio.
  """

  keep_ratio: float | None = None
  keep_count: int | None = None
  keep_mass: float | None = None
  rounding: str = "ceil"
  normalization: str = "l2"
  selector: str = "hawk"
  prune_layer: int = 2
  merge: str = "none"
  sink_filter: float = 0.0
  region_floor: float = 0.0
  head_weights: str = "importance"
  rope: bool = False
  score_layer: int = 0
  stages: str = ""

  def __post_init__(self):
    """Checks all settings.

    Raises:
      ValueError: a setting that is not allowed, by name.
    """
    budgets.check_budget(self.keep_ratio, self.keep_count, self.rounding)
    checks.choice("normalization", self.normalization, scoring.NORMALIZATIONS)
    checks.choice("selector", self.selector, selectors.SELECTORS)
    checks.whole("prune_layer", self.prune_layer, 1)
    checks.choice("merge", self.merge, selectors.MERGES)
    checks.real("sink_filter", self.sink_filter, "at least 0 and less than 1", 0.0, math.nextafter(1.0, 0.0))
    checks.real("region_floor", self.region_floor, "from 0 to 1", 0.0, 1.0)
    checks.choice("head_weights", self.head_weights, ("importance", *scoring.QUESTION_WEIGHTS))
    checks.flag("rope", self.rope)
    checks.whole("score_layer", self.score_layer)
    if self.score_layer and not self.rule.of_layer:
      raise ValueError(f"score_layer: {self.selector} does not use the scores of a layer; choose another selector")
    if self.keep_mass is not None:
      checks.share("keep_mass", self.keep_mass)
      if self.rule.stage != "input":
        raise ValueError(f"keep_mass: {self.selector} uses scores of its own; choose another selector")
    if self.stages:
      self._check_stages()

  def _check_stages(self):
    schedule = self.schedule
    if schedule.input is not None and (self.keep_ratio is not None or self.keep_count is not None):
      raise ValueError(f"stages: {self.stages!r} has a share at the input; give no keep_ratio or keep_count beside it")
    if self.stage != "input":
      raise ValueError(f"stages: {self.selector} or score_layer removes tokens in the decoder itself; give one of them")
    if schedule.tower is not None and self.rule.measures:
      raise ValueError(f"stages: {self.selector} measures whole pictures; with a tower stage, choose another selector")

  @property
  def schedule(self) -> schedule_lib.Schedule:
    """`stages`, parsed; without stages, an empty schedule."""
    return schedule_lib.parse(self.stages) if self.stages else schedule_lib.Schedule()

  @property
  def input_ratio(self) -> float | None:
    """Share of the visual tokens that is left before the decoder, by `keep_ratio` or by `stages`."""
    return self.schedule.input.share if self.schedule.input is not None else self.keep_ratio

  @property
  def keeps_all(self) -> bool:
    """Whether no visual token is removed anywhere."""
    return self.input_ratio is None and self.keep_count is None and self.keep_mass is None and not self.stages

  @property
  def rule(self) -> selectors.Selector:
    """The selector."""
    return selectors.SELECTORS[self.selector]

  @property
  def stage(self) -> str:
    """Where in the model tokens are removed, see `selectors.Selector.stage`."""
    return "decoder" if self.score_layer else self.rule.stage

  def plan(
    self,
    prompt: prompt_lib.Prompt,
    num_heads: int,
    head_importance: Any = None,
    *,
    scores: Any = None,
    seeds: Any = 0,
    limits: np.ndarray | None = None,
  ) -> Plan | None:
    """Prepares these settings for a batch, on the host.

    Args:
      prompt: the batch, NumPy.
      num_heads: H of the model.
      head_importance: [H] or [B, H] numbers; [1], [B, 1] or None: uniform head weights.
      scores: [B, V] numbers that replace HAWK's fused scores, or None.
      seeds: a whole number, or [B], for selectors that draw at random.
      limits: [B] visual tokens that a tower stage leaves of each prompt at most; None: all.

    Returns:
      The plan; None where every prompt keeps all of its visual tokens. If `stages` has stages in the decoder, each must have
      a layer and a score.

    Raises:
      ValueError: arrays that do not fit the batch or the model, by name.
    """
    batch = prompt.text_tokens.shape[0]
    weights = head_weights(head_importance, num_heads, batch)
    seeds = checks.whole_array("selector_seed", seeds, "a whole number, or one per prompt")
    if seeds.shape not in ((), (batch,)):
      raise ValueError(f"selector_seed: got shape {seeds.shape}, must be a whole number, or one per prompt: [{batch}]")
    if scores is not None:
      if self.rule.stage != "input":
        raise ValueError(f"scores: {self.selector} uses scores of its own; choose another selector")
      scores = _checked_scores(scores, prompt.visual_order.shape)
    elif "scores" in self.rule.needs:
      raise ValueError(f"scores: the selector {self.selector!r} needs them; HAWK's do not replace them")
    visual = np.asarray(prompt.visual_counts)
    counts = budgets.keep_counts(visual, keep_ratio=self.input_ratio, keep_count=self.keep_count, rounding=self.rounding)
    counts = counts if limits is None else np.minimum(counts, limits).astype(np.int32)
    keeps_all = bool((counts == visual).all()) and self.keep_mass is None
    slots = prompt.visual_order.shape[1]
    keep_count = slots if keeps_all else min(bucket(int(counts.max()), KEEP_MINIMUM), slots)
    cuts = self.cuts(visual, counts, keep_count)
    if keeps_all and not cuts:
      return None
    return Plan(
      keep_count=keep_count,
      # Without the budget, which is data: another ratio must not change a static field, or it would compile again.
      pruning=dataclasses.replace(self, keep_ratio=None, keep_count=None, keep_mass=None, rounding="ceil", stages=""),
      head_importance=weights,
      counts=None if keeps_all else counts,
      seeds=np.broadcast_to(seeds.astype(np.uint32), [batch]),
      keep_mass=None if self.keep_mass is None else np.float32(self.keep_mass),
      scores=scores,
      cuts=cuts,
    )

  def cuts(self, visual: np.ndarray, counts: np.ndarray, keep_count: int) -> tuple[Cut, ...]:
    """The stages in the decoder, each of which must have a layer and a score.

    Args:
      visual: [B] visual tokens of each prompt before any stage.
      counts: [B] of these, how many enter the decoder at most.
      keep_count: bound on `counts`.
    """
    cuts: list[Cut] = []
    for stage in self.schedule.decoder:
      assert stage.layer is not None and stage.score is not None
      counts = np.minimum(counts, budgets.keep_counts(visual, keep_ratio=stage.share, rounding=self.rounding))
      keep_count = min(bucket(int(counts.max()), KEEP_MINIMUM), keep_count)
      cuts.append(Cut(stage.layer, stage.score, keep_count, counts))
    return tuple(cuts)


def head_weights(head_importance: Any, num_heads: int, batch: int) -> np.ndarray:
  """[H] or [B, H] float32 weights of a head importance.

  Args:
    head_importance: [H] or [B, H] numbers; [1], [B, 1] or None: uniform head weights.
    num_heads: H of the model.
    batch: B.

  Raises:
    ValueError: weights that do not fit the batch or the model.
  """
  weights = importance.validate(np.ones([1], np.float32) if head_importance is None else head_importance)
  weights = importance.validate(weights if weights.shape[-1] != 1 else np.repeat(weights, num_heads, axis=-1), num_heads)
  if weights.ndim == 2 and weights.shape[0] != batch:
    raise ValueError(f"head_importance: got weights for {weights.shape[0]} prompts, the batch has {batch}")
  # Weights near the ends of float32 are scaled by a power of two, which changes no ranking, to stay far from them.
  exponents = np.frexp(weights.max(axis=-1, keepdims=True))[1]
  return np.ldexp(weights, np.where(np.abs(exponents) > _LARGEST_EXPONENT, -exponents, 0))


@struct.dataclass
class Cut:
  """A stage inside the decoder, for one batch.

  Attributes:
    layer: static, layers that run before the stage.
    score: static, name of what ranks the tokens.
    keep_count: static bound on `counts`.
    counts: [B] int32, visual tokens that are left of each row.
  """

  layer: int = struct.field(pytree_node=False)
  score: str = struct.field(pytree_node=False)
  keep_count: int = struct.field(pytree_node=False)
  counts: ArrayLike


@struct.dataclass
class Plan:
  """A `Pruning` for one batch. Arrays are data; another `keep_count` or `pruning` compiles another program.

  Attributes:
    keep_count: static K, the bound on `counts`.
    pruning: static, the rule and how it scores. Its budget is not read: `counts` and `keep_mass` replace it.
    head_importance: [H] or [B, H] float32; None: uniform head weights.
    counts: [B] int32, visual tokens that each row keeps; None: K, or all tokens of a row that has fewer.
    seeds: [B] uint32, for selectors that draw at random; None: 0.
    keep_mass: [] float32, the adaptive budget as in `Pruning`, or None.
    scores: [B, V] float32 that replace HAWK's fused scores, or None.
    cuts: the stages inside the decoder.
  """

  keep_count: int = struct.field(pytree_node=False)
  pruning: Pruning = struct.field(pytree_node=False, default=Pruning())
  head_importance: ArrayLike | None = None
  counts: ArrayLike | None = None
  seeds: ArrayLike | None = None
  keep_mass: ArrayLike | None = None
  scores: ArrayLike | None = None
  cuts: tuple[Cut, ...] = ()

  @property
  def keeps_all_at_input(self) -> bool:
    """Whether no visual token is removed before the decoder, whatever the prompts are."""
    return self.counts is None and self.keep_mass is None and bool(self.cuts)

  def check(self, rows: int) -> None:
    """Checks that the plan, which a caller may have changed since `Pruning.plan` made it, fits a batch of so many rows.

    Raises:
      ValueError: it does not.
    """
    checks.whole("keep_count", self.keep_count, 1)
    if self.counts is not None:
      allowed = f"whole numbers [{rows}], one per prompt"
      counts = self.counts if isinstance(self.counts, jax.Array) else checks.real_array("counts", self.counts, allowed)
      dtype = jnp.result_type(counts)
      if counts.shape != (rows,) or not jnp.issubdtype(dtype, jnp.integer):
        raise ValueError(f"counts: got {dtype} of shape {counts.shape}, must be {allowed}")


def _checked_scores(scores, shape) -> np.ndarray:
  allowed = f"finite numbers {list(shape)}, one per visual slot"
  scores = checks.real_array("scores", scores, allowed)
  if scores.shape != shape:
    raise ValueError(f"scores: got {scores.dtype} of shape {scores.shape}, must be {allowed}")
  with np.errstate(over="ignore"):
    scores = scores.astype(np.float32)
  if not np.isfinite(scores).all():
    raise ValueError(f"scores: {np.count_nonzero(~np.isfinite(scores))} are not finite in float32, must be {allowed}")
  return scores
