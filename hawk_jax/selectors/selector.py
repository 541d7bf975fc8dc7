"""What a selector is: a rule, and what it needs.

Axes: B batch, V visual slots, K kept slots, D hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
import dataclasses

import jax

from hawk_jax import scoring

# Scores that depend on head importance.
WEIGHTED = ("hawk", "separator")
# Scores that a port measures while it encodes pictures; see `models.vision_language.Features`.
MEASURED = ("saliency", "sensitivity")


@dataclasses.dataclass(frozen=True)
class Selector:
  """A rule that picks visual tokens.

  Attributes:
    pick: the function that the package's documentation describes.
    needs: further inputs of the rule, keyword arguments of `pick`: `places` and `curve`, [B, V] int32 of `Prompt`;
      `question`, [B, D] float32, the mean embedding of the query tokens. `scores`, which is no argument: the caller must
      give scores, since the published rule does not use HAWK's.
    stage: where in the model tokens are removed: `input`, before the decoder, or `decoder`, after some of its layers
      (models/stages.py). In the latter case, `scores` are computed by that stage.
    relevance: what the `scores` of the rule are: `hawk`, the fused scores; `separator`, the same with the token after the
      picture as the query; `keys`, the L1 norms of the first layer's keys; `saliency`, the attention that each token
      receives in the vision tower; `sensitivity`, how much the projector's output changes with its input. None: the rule
      reads no scores; those that it gets are HAWK's, by which `keep_mass` sets its budget.
    merge: for a rule that merges tokens by itself: a function of the same arguments as `pick`, and of `kept` [B, K], to
      [B, V] int32, the kept token that each token joins, -1 for one that is dropped. None: it drops tokens.
  """

  pick: Callable[..., jax.Array]
  needs: tuple[str, ...] = ()
  stage: str = "input"
  relevance: str | None = "hawk"
  merge: Callable[..., jax.Array] | None = None

  @property
  def weighted(self) -> bool:
    """Whether head importance changes what the rule picks."""
    return self.of_layer and self.relevance in WEIGHTED

  @property
  def of_layer(self) -> bool:
    """Whether the scores come from projections of a decoder layer, which `Pruning.score_layer` chooses."""
    return self.stage == "input" and self.relevance in (*WEIGHTED, "keys") and "scores" not in self.needs

  @property
  def measures(self) -> tuple[str, ...]:
    """What the port must measure while it encodes pictures."""
    return (self.relevance,) if self.relevance in MEASURED else ()

  def __call__(self, features, scores, visual_mask, counts, seeds, *, keep_count, **needed):
    """Calls `pick` with the entries of `needed` that are named in `needs`, for features and scores of any size."""
    features, scores = (x if x is None else scoring.bounded(x, visual_mask) for x in (features, scores))
    return self.pick(features, scores, visual_mask, counts, seeds, keep_count=keep_count, **self.needed(needed))

  def needed(self, arrays: Mapping[str, jax.Array | None]) -> dict[str, jax.Array]:
    """The entries of `arrays` that are named in `needs`.

    Raises:
      ValueError: one of them is missing.
    """
    return {name: given(name, arrays.get(name)) for name in self.needs if name != "scores"}


def given(name: str, value: jax.Array | None) -> jax.Array:
  """An array that a rule needs.

  Raises:
    ValueError: it is None.
  """
  if value is None:
    raise ValueError(f"{name}: missing, but the rule needs it; `pack` of a port makes places and curve")
  return value
