"""Where rows of a table take their head importance from: NAME=SOURCE on the command line.

SOURCE is what `hawk_jax.importance.load` reads (`uniform`, `preset:NAME` or a JSON file), `FILE.json#DATASET` for the
weights that follow from one of the file's calibration sets alone, or `question:mass` or `question:entropy` for weights that
follow from each question without calibration (`hawk_jax.scoring.question_weights`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
import contextlib
import dataclasses
from typing import Any

import numpy as np

from hawk_jax import importance
from hawk_jax import scoring

HELP = (
  "NAME=SOURCE adds rows with another head importance: a JSON file, FILE.json#DATASET, preset:NAME, question:mass or "
  "question:entropy; repeat the flag for several."
)
_QUESTION = "question:"


@dataclasses.dataclass(frozen=True)
class Importance:
  """A head importance.

  Attributes:
    weights: [H] float32; uniform where weights follow from the question.
    head_weights: of `hawk_jax.Pruning`.
  """

  weights: np.ndarray
  head_weights: str = "importance"

  @property
  def calibrated(self) -> bool:
    """Whether all questions have these weights."""
    return self.head_weights == "importance"

  @property
  def record(self) -> list[float] | str:
    """What a journal says of it."""
    return self.weights.tolist() if self.calibrated else self.head_weights


def parse(arguments: Sequence[str], taken: Iterable[str] = ()) -> dict[str, str]:
  """Sources by name.

  Args:
    arguments: NAME=SOURCE each.
    taken: names that other rows have.

  Raises:
    ValueError: a malformed argument, or a name that is taken.
  """
  found: dict[str, str] = {}
  for argument in arguments:
    name, equals, source = argument.partition("=")
    if not name or not equals or name in found or name in taken:
      raise ValueError(f"importance: got {argument!r}, must be NAME=SOURCE with a name that no other row has")
    found[name] = source
  return found


@contextlib.contextmanager
def _naming() -> Iterator[None]:
  """A context, or decorator, whose errors name `importance` where `hawk_jax.importance` names its own argument."""
  try:
    yield
  except ValueError as error:
    raise ValueError(str(error).replace("head_importance: ", "importance: ", 1)) from error


@_naming()
def load(source: str, num_heads: int) -> Importance:
  """The head importance of a source.

  Raises:
    ValueError: as `importance.load`; a kind of question weights or a data set that is not there.
  """
  if source.startswith(_QUESTION):
    kind = source.removeprefix(_QUESTION)
    if kind not in scoring.QUESTION_WEIGHTS:
      raise ValueError(
        f"importance: got {source!r}, allowed are {', '.join(_QUESTION + kind for kind in scoring.QUESTION_WEIGHTS)}"
      )
    return Importance(importance.load("uniform", num_heads), kind)
  path, separator, dataset = source.partition("#")
  if not separator:
    return Importance(importance.load(source, num_heads))
  scores = details(path).get("scores", {})
  if dataset not in scores:
    raise ValueError(f"importance: {path} has no scores on {dataset!r}, but on {', '.join(scores) or 'no data set'}")
  return Importance(importance.validate(importance.from_ablation(scores[dataset]), num_heads))


@_naming()
def details(source: str) -> dict[str, Any]:
  """What a source says of how it was estimated; see `importance.details`."""
  return {} if source.startswith(_QUESTION) else importance.details(source.partition("#")[0])


def by_dataset(name: str, source: str) -> dict[str, str]:
  """Sources for each calibration set of a file that distinguishes heads, by the name of the row; empty for other sources."""
  if "#" in source:
    return {}
  scores = details(source).get("scores", {})
  return {f"{name} on {dataset}": f"{source}#{dataset}" for dataset, values in scores.items() if np.ptp(values) > 0}


def origins(named: Mapping[str, str], test_pictures: set[str]) -> dict[str, str]:
  """The fingerprint of the model that each source was estimated with, where the source says so.

  Args:
    named: sources by the names of their rows.
    test_pictures: digests.

  Raises:
    ValueError: a source was estimated on test pictures, or says how it was estimated in a wrong way.
  """
  found = {}
  for source in named.values():
    origin = details(source)
    settings, pictures = origin.get("settings", {}), origin.get("pictures", [])
    if not isinstance(settings, dict) or not isinstance(pictures, list) or not all(isinstance(one, str) for one in pictures):
      raise ValueError(f"importance: {source} must hold an object under 'settings' and a list of strings under 'pictures'")
    check_apart(f"importance: {source} was estimated on", {*pictures}, test_pictures)
    if "model" in settings:
      found[source] = settings["model"]
  return found


def check_apart(subject: str, pictures: set[str], test_pictures: set[str]) -> None:
  """Refuses calibration on test pictures.

  Args:
    subject: how the message begins.
    pictures: digests of the pictures that were used for calibration.
    test_pictures: digests.

  Raises:
    ValueError: there are test pictures among them.
  """
  if shared := len(pictures & test_pictures):
    raise ValueError(f"{subject} {shared} of the test pictures; calibrate on others")
