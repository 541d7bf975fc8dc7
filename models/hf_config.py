"""What several ports read in the same way from a checkpoint's config.json, and the checks of what they read.

transformers' config classes check types where they know them; whether sizes are positive, small enough to build and fit one
another is checked here, before anything is built from them.
"""

from __future__ import annotations

from collections.abc import Callable
import dataclasses
import math
import pathlib
from typing import Any, TypeVar

from huggingface_hub import errors as hub_errors

from hawk_jax import checks
from models import foreign
from models.decoder import DecoderConfig

# The largest numbers that a config may hold: several times those of any model that there is. Beyond them, a config would
# exhaust the memory before it is compared with the weights.
_MOST = {"num_hidden_layers": 256, "depth": 256, "num_labels": 2**16, "max_position_embeddings": 2**30}
_MOST_ELSE = 2**20
_MOST_VALUES = 2**24  # pixels of a tile or window, and numbers in a table of positions
# Sizes that are checked wherever a config.json has them, before transformers sees them.
_SIZES = {field.name for field in dataclasses.fields(DecoderConfig) if field.type == "int"} | {*_MOST, "num_heads"}

_Config = TypeVar("_Config")


def read(directory: pathlib.Path, content: dict[str, Any], from_hf: Callable[[dict[str, Any]], _Config]) -> _Config:
  """A port's configuration from the content of a config.json.

  Args:
    directory: of the checkpoint, for messages.
    content: of its config.json.
    from_hf: of the port.

  Raises:
    ValueError: values that the port does not support or that transformers cannot read, with the name of the file.
  """
  try:
    _check_sizes("", content)
    return from_hf(content)
  except ValueError as error:
    raise ValueError(f"model: {directory}/config.json: {error}") from error
  except (hub_errors.StrictDataclassError, *foreign.ERRORS) as error:  # of transformers' config classes
    raise ValueError(f"model: {directory}/config.json: {foreign.reason(error)}") from error


def require(name: str, value, *supported) -> None:
  """Refuses a value that the port does not implement.

  Raises:
    ValueError: `value` is not among `supported`.
  """
  if value not in supported:
    raise ValueError(f"config: {name} is {checks.show(value)}, supported is {', '.join(map(repr, supported))}")


def matching(kind: type, source) -> dict[str, Any]:
  """Values of a transformers config for the fields of a dataclass, lists as tuples; fields that it lacks are left out."""
  values = {field.name: getattr(source, field.name) for field in dataclasses.fields(kind) if hasattr(source, field.name)}
  return {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}


def make(kind: type, part: str, source, **changes) -> Any:
  """A config dataclass from a part of a transformers config, with every number checked.

  Args:
    kind: the dataclass; the names of its fields are those of config.json.
    part: what config.json calls the part, for messages.
    source: transformers' configuration of the part.
    **changes: values of fields that are not taken from `source`.

  Raises:
    ValueError: a value of another type or outside its range, by name.
  """
  values = {**matching(kind, source), **changes}
  for field in dataclasses.fields(kind):
    if field.name in values:
      _check(f"config: {part}.{field.name}", field, values[field.name])
  return kind(**values)


def divides(part: str, name: str, value: int, by: str, divisor: int) -> None:
  """Refuses a number that another does not divide.

  Args:
    part: as in `make`.
    name: of `value`.
    value: a positive number.
    by: of `divisor`.
    divisor: a positive number that must divide it.

  Raises:
    ValueError: it does not.
  """
  if value % divisor:
    raise ValueError(f"config: {part}.{name} is {value}, must be a multiple of {by}, {divisor}")


def bound(name: str, count: int) -> None:
  """Refuses sizes that together ask for too much memory.

  Args:
    name: which numbers are counted.
    count: how many there are.

  Raises:
    ValueError: too many.
  """
  if count > _MOST_VALUES:
    raise ValueError(f"config: {name} has {count:,} values, must have at most {_MOST_VALUES:,}")


def token_id(name: str, value, least: int = 0) -> int:
  """The id of a token, at least `least`.

  Raises:
    ValueError: anything else.
  """
  return checks.whole(f"config: {name}", value, least, _MOST_ELSE)


def token_ids(name: str, value) -> tuple[int, ...]:
  """The ids of several tokens, from a list, one id or None.

  Raises:
    ValueError: anything else.
  """
  ids = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
  return tuple(token_id(name, each) for each in ids)


def distinct(**ids: int) -> None:
  """Refuses placeholders that share an id.

  Raises:
    ValueError: two of them are the same.
  """
  if len(set(ids.values())) < len(ids):
    raise ValueError(f"config: {' and '.join(ids)} are both {next(iter(ids.values()))}, must differ")


def check_tiles(part: str, tower) -> None:
  """Refuses a tower whose heads do not divide its width, or whose tiles have no patch or too many.

  Args:
    part: as in `make`.
    tower: a port's configuration of a tower that takes square tiles.

  Raises:
    ValueError: for such a tower.
  """
  divides(part, "hidden_size", tower.hidden_size, "num_attention_heads", tower.num_attention_heads)
  if tower.patch_size > tower.image_size:
    raise ValueError(f"config: {part}.patch_size is {tower.patch_size}, must be at most image_size, {tower.image_size}")
  bound(f"{part}'s tile", math.prod(tower.tile_shape))
  bound(f"{part}'s table of positions", (tower.side**2 + 1) * tower.hidden_size)


def require_squares(vision) -> None:
  """Refuses a tower whose tiles or patches are not square.

  Args:
    vision: transformers' configuration of the tower.

  Raises:
    ValueError: image_size or patch_size is not one number.
  """
  for name in ("image_size", "patch_size"):
    if not isinstance(getattr(vision, name), int):
      raise ValueError(f"config: vision_config.{name} is {getattr(vision, name)!r}, must be one number: tiles are square")


def decoder(
  text,
  *,
  attention_bias: bool,
  tie_word_embeddings: bool,
  mrope_section: tuple[int, ...] = (),
  mrope_interleaved: bool = False,
  qk_norm: bool = False,
) -> DecoderConfig:
  """The decoder of a transformers text config.

  Dynamic rope equals the default up to max_position_embeddings, beyond which no prompt or answer gets here.

  Args:
    text: transformers' configuration of a Qwen2-, Qwen3-, LLaMA- or Mistral-style decoder.
    attention_bias: whether query, key and value projections have one; the output projection has none.
    tie_word_embeddings: whether the head is the embedding table.
    mrope_section: number of rotary frequencies of each position axis; none: one axis.
    mrope_interleaved: see `models.rope.text_frequencies`.
    qk_norm: whether each head's queries and keys are normalized.

  Raises:
    ValueError: an activation, a rope or a sliding window that the shared decoder does not implement, or sizes that do not
      fit one another.
  """
  require("text_config.hidden_act", text.hidden_act, "silu")
  rope = text.rope_parameters
  require("text_config.rope_parameters.rope_type", rope.get("rope_type", "default"), "default", "dynamic")
  require("text_config.rope_parameters.partial_rotary_factor", rope.get("partial_rotary_factor", 1.0), 1.0)
  config = make(
    DecoderConfig,
    "text_config",
    text,
    head_dim=getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads,
    rope_theta=rope.get("rope_theta"),
    mrope_section=mrope_section,
    mrope_interleaved=mrope_interleaved,
    qk_norm=qk_norm,
    attention_bias=attention_bias,
    tie_word_embeddings=tie_word_embeddings,
  )
  if config.head_dim == config.hidden_size // config.num_attention_heads:  # one that was not given is this
    divides("text_config", "hidden_size", config.hidden_size, "num_attention_heads", config.num_attention_heads)
  divides(
    "text_config", "num_attention_heads", config.num_attention_heads, "num_key_value_heads", config.num_key_value_heads
  )
  divides("text_config", "head_dim", config.head_dim, "the two halves of a rotation", 2)
  if mrope_section and sum(mrope_section) != config.head_dim // 2:
    raise ValueError(
      f"config: text_config.rope_parameters.mrope_section is {list(mrope_section)}, must add up to half of head_dim, "
      f"{config.head_dim // 2}"
    )
  window = getattr(text, "sliding_window", None)
  slides = "sliding_attention" in (getattr(text, "layer_types", None) or ["sliding_attention"])
  if window is not None and slides and window < text.max_position_embeddings:
    raise ValueError(
      f"config: text_config.sliding_window is {window}, must be null or at least max_position_embeddings "
      f"({text.max_position_embeddings}): sliding window attention is not supported"
    )
  return config


def _check_sizes(part, content) -> None:
  """Refuses sizes outside their limits before transformers' config classes make lists of that length."""
  for name, value in content.items():
    if name in _SIZES and value is not None:
      checks.whole(f"config: {part}{name}", value, 1, _MOST.get(name, _MOST_ELSE))
    if isinstance(value, dict):
      _check_sizes(f"{part}{name}.", value)


def _check(name, field, value) -> None:
  most = _MOST.get(field.name, _MOST_ELSE)
  if field.type == "int":
    checks.whole(name, value, 1, most)
  elif field.type == "float":
    checks.real(name, value, "a positive number of at most 1e12", 1e-12, 1e12)
  elif field.type == "bool":
    checks.flag(name, value)
  elif field.type == "tuple[int, ...]":
    if not isinstance(value, tuple):
      raise ValueError(f"{name}: got {checks.show(value)}, must be a list of whole numbers")
    for each in value:
      checks.whole(name, each, 0, most)
