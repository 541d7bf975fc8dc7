"""Settings of the method that commands share: what the paper fixes, and what can be put before every rule."""

from __future__ import annotations

import dataclasses
from typing import Any

from experiments.running import settings
from experiments.running.settings import option
from hawk_jax import budgets
from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax.pruning import Pruning

STAGES = (
  "Stages at which visual tokens are removed in tower, input and decoder, such as "
  "'tower@8:0.5, input:0.3, decoder@12:0.15', or the name of a preset, fast or balanced; see docs/method.md."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(settings.Checked):
  """Settings of `hawk_jax.Pruning` that are the same for all rows of a table."""

  rounding: str = option("ceil", "How the number of tokens that keep_ratio means is rounded.", choices=budgets.ROUNDINGS)
  normalization: str = option("l2", "How each head's scores are normalized.", choices=scoring.NORMALIZATIONS)
  rope: bool = option(False, "Whether tokens are scored with rotary positions, which the method leaves out.")
  score_layer: int = option(
    0,
    "Decoder layer whose projections score; the layers before it run on all tokens. Only for rules that use HAWK's score.",
    least=0,
  )
  sink_filter: float = option(0.0, "Share of the visual tokens, those of the largest norms, that no rule sees.", least=0.0)
  region_floor: float = option(
    0.0, "Share of the budget that goes to the best token of each region of a picture.", least=0.0
  )

  @property
  def method(self) -> dict[str, Any]:
    """These settings by name, for a command that this one runs and for the record."""
    return {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}

  @property
  def changed(self) -> dict[str, Any]:
    """Those of `method` that are not at their defaults."""
    return {
      field.name: value for field in dataclasses.fields(Settings) if (value := getattr(self, field.name)) != field.default
    }

  @property
  def changed_flags(self) -> str:
    """`changed` for the title of a table: " with --score_layer=1", or nothing."""
    flags = ", ".join(f"--{name}={value}" for name, value in self.changed.items())
    return f" with {flags}" if flags else ""

  @property
  def scoring_layer(self) -> str:
    """The layer of `score_layer` in words."""
    return f"decoder layer {self.score_layer}" if self.score_layer else "the first layer"

  def pruning_of(self, **fields: Any) -> Pruning:
    """These settings with others; `score_layer` is left out of rules that do not score by a layer.

    Args:
      **fields: of `hawk_jax.Pruning`.

    Raises:
      ValueError: as `hawk_jax.Pruning`.
    """
    shared = self.method
    if not selectors.SELECTORS[fields.get("selector", "hawk")].of_layer:
      del shared["score_layer"]
    return Pruning(**shared | fields)
