"""Schedules: at which stages of a model visual tokens are removed, and what share of them each stage leaves.

`tower@8:0.5, input:0.3, decoder@12:0.15` runs the first 8 blocks of the vision tower on all visual tokens and the others on
half of them, lets 0.3 of all visual tokens into the decoder, and 0.15 into its layers from number 12 on. Shares are of a
prompt's visual tokens before any stage. A stage is

  PLACE[@LAYER]:SHARE[/SCORE][/restore]

LAYER is the number of blocks or layers that run before the stage; without it, the model chooses. SCORE names what the stage
ranks tokens by, see `models.stages.SCORES` and `models.tower.SCORES`; at the input, `Pruning.selector` picks. After
`restore`, tokens that a tower stage removed get a last state after all, see `models.tower.restore`.
"""

from __future__ import annotations

from collections.abc import Sequence
import dataclasses
import functools
import re

from hawk_jax import checks

PLACES = ("tower", "input", "decoder")
# Schedules by name, chosen by the measurements in docs/performance.md, "Stages". Both leave 0.2 of the visual tokens in a
# decoder layer, mean over the layers.
PRESETS = {
  "balanced": "tower:0.5/change/restore, input:0.3, decoder:0.1",
  "fast": "tower:0.3/change/restore, input:0.3, decoder:0.1",
}
_RESTORE = "restore"
_STAGE = re.compile(r"(?P<place>\w+)(@(?P<layer>[^:/]*))?:(?P<share>[^:/@]*)(?P<words>(/[^:/@]*)*)")


@dataclasses.dataclass(frozen=True)
class Stage:
  """One entry of a schedule.

  Attributes:
    place: one of PLACES.
    share: of the visual tokens that are left, in (0, 1].
    layer: blocks or layers that run before the stage; None: the model's own choice, or the input.
    score: name of what ranks the tokens; None: the place's own, or the input.
    restore: whether the tower's last states of removed tokens are estimated from those of kept ones.
  """

  place: str
  share: float
  layer: int | None = None
  score: str | None = None
  restore: bool = False

  def __str__(self) -> str:
    at = "" if self.layer is None else f"@{self.layer}"
    words = [word for word in (self.score, _RESTORE if self.restore else None) if word]
    return "/".join([f"{self.place}{at}:{self.share!r}", *words])


@dataclasses.dataclass(frozen=True)
class Schedule:
  """The stages of a model, in the order in which they run.

  Attributes:
    tower: stage inside the vision tower, or None.
    input: stage before the decoder, or None.
    decoder: stages inside the decoder, by ascending layer.
  """

  tower: Stage | None = None
  input: Stage | None = None
  decoder: tuple[Stage, ...] = ()

  def __str__(self) -> str:
    return ", ".join(map(str, self.stages))

  @property
  def stages(self) -> tuple[Stage, ...]:
    """All stages in the order in which they run."""
    return tuple(stage for stage in (self.tower, self.input, *self.decoder) if stage is not None)

  @property
  def entering(self) -> float:
    """Share of the visual tokens that enter the decoder."""
    if self.input is not None:
      return self.input.share
    return 1.0 if self.tower is None or self.tower.restore else self.tower.share

  def mean_share(self, layers: int) -> float:
    """Share of the visual tokens in a decoder layer, mean over the layers.

    Args:
      layers: of the decoder; the stages must have layers.
    """
    starts = [0, *(stage.layer or 0 for stage in self.decoder), layers]
    shares = [self.entering, *(stage.share for stage in self.decoder)]
    return sum(share * (stop - start) for share, start, stop in zip(shares, starts, starts[1:])) / layers

  def tower_share(self, blocks: int) -> float:
    """Share of the visual tokens in a block of the vision tower, mean over the blocks; the stage must have a layer."""
    if self.tower is None:
      return 1.0
    before = self.tower.layer or 0
    return (before + self.tower.share * (blocks - before)) / blocks

  def describe(self, blocks: int, layers: int) -> str:
    """What the schedule costs, in words: mean shares of the visual tokens.

    Args:
      blocks: of the tower.
      layers: of the decoder.
    """
    return (
      f"{self}; visual tokens per decoder layer, mean: {self.mean_share(layers):.3g} of all; "
      f"per tower block: {self.tower_share(blocks):.3g}"
    )


@functools.lru_cache(maxsize=256)
def parse(text: str) -> Schedule:
  """Reads a schedule, or the name of one of `PRESETS`.

  Args:
    text: such as `tower@8:0.5, input:0.3, decoder@12:0.15`.

  Raises:
    ValueError: says which entry is wrong and what is allowed.
  """
  entries = [_stage(part.strip(), text) for part in PRESETS.get(text.strip(), text).split(",")]
  at = {place: tuple(stage for stage in entries if stage.place == place) for place in PLACES}
  for place in ("tower", "input"):
    if len(at[place]) > 1:
      raise ValueError(f"stages: {text!r} has {len(at[place])} stages at {place}, at most one is allowed")
  first = lambda stages: stages[0] if stages else None
  schedule = Schedule(first(at["tower"]), first(at["input"]), at["decoder"])
  if list(schedule.stages) != entries:
    raise ValueError(f"stages: {text!r} must be in the order in which they run: {', '.join(PLACES)}")
  check_layers(schedule.decoder, text)
  removing = [stage for stage in entries if not stage.restore]
  for before, after in zip(removing, removing[1:]):
    if after.share > before.share:
      raise ValueError(f"stages: in {text!r}, {after} keeps more than {before} leaves; shares are of all visual tokens")
  return schedule


def check_layers(stages: Sequence[Stage], text: str) -> None:
  """Checks that the layers of decoder stages ascend; those without a layer are the model's choice, one at most.

  Raises:
    ValueError: they do not.
  """
  layers = [stage.layer for stage in stages]
  known = [layer for layer in layers if layer is not None]
  if any(after <= before for before, after in zip(known, known[1:])):
    raise ValueError(f"stages: the layers of the decoder's stages in {text!r} are {known}, they must ascend")
  if len(layers) > 1 and len(known) < len(layers):
    raise ValueError(f"stages: in {text!r}, several stages of the decoder need a layer each, such as decoder@12:0.15")


def _stage(part: str, text: str) -> Stage:
  """One entry."""
  match = _STAGE.fullmatch(part)
  if not match or match["place"] not in PLACES:
    allowed = f"PLACE[@LAYER]:SHARE[/SCORE][/{_RESTORE}] with a PLACE of {', '.join(PLACES)}"
    presets = ", ".join(PRESETS)
    raise ValueError(f"stages: got {part!r} in {text!r}, must be like tower@8:0.5: {allowed}; or one of {presets}")
  place, layer, words = match["place"], match["layer"], match["words"].split("/")[1:]
  try:
    share = checks.share("share", float(match["share"]))
  except ValueError as error:
    raise ValueError(f"stages: the share of {part!r} must be a number in (0, 1]") from error
  if layer is not None and (place == "input" or not layer.isdecimal() or int(layer) < 1):
    what = "the input has no layer" if place == "input" else "its layer must be a whole number of at least 1"
    raise ValueError(f"stages: got {part!r}, {what}")
  restore = _RESTORE in words
  scores = [word for word in words if word != _RESTORE]
  if len(words) != len(set(words)) or len(scores) > 1 or "" in words or (place == "input" and words):
    raise ValueError(f"stages: got {part!r}, after the share there may be one score and {_RESTORE}, at the input nothing")
  if restore and place != "tower":
    raise ValueError(f"stages: got {part!r}, only the tower can {_RESTORE}")
  return Stage(place, share, None if layer is None else int(layer), scores[0] if scores else None, restore)
