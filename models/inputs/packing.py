"""Host-side planning that every port shares: token arrays to a `Prompt` of fixed shapes.

Axes: B batch, S prompt length as given, T text bucket, V visual bucket, A position axes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses

import numpy as np

from hawk_jax import checks
from hawk_jax.buckets import bucket
from hawk_jax.prompt import Prompt
from models.decoder import DecoderConfig
from models.vision_language import View

TEXT_MINIMUM = 32
VISUAL_MINIMUM = 16
# Image processors normalize pixels to about -3 to 3; numbers beyond this overflow somewhere in a vision tower.
LARGEST_PIXEL = 1e4


@dataclasses.dataclass
class Pictures:
  """The pictures, or the videos, of a batch that share a placeholder, in the order of their placeholders.

  Attributes:
    kind: what to call one of them, for messages: image or video.
    argument: the array that holds their sizes.
    noun: what to call a row of that array, for messages.
    sizes: for each picture, its row.
    slots: for each picture, [count] rows of the encoder's output, one for each of its visual tokens.
    positions: for each picture, [count, A] rotary position ids, counted from where the picture begins.
    views: for each picture, (rows, columns, newlines) of its views; each temporal slice of a video is a list of its own.
    places: for each video, [count] ids that only tokens at the same place in its frames share; None: no token shares its
      place.
    drawn: for each picture, [count] numbers of its visual tokens in the order of its views' cells; None: they are in it.
    used: how many have been matched with their placeholders.
  """

  kind: str
  argument: str
  noun: str
  sizes: Sequence[Sequence[int]]
  slots: Sequence[np.ndarray]
  positions: Sequence[np.ndarray]
  views: Sequence[Sequence[Sequence[tuple[int, int, bool]]]]
  places: Sequence[np.ndarray] | None = None
  drawn: Sequence[np.ndarray] | None = None
  used: int = 0


def check_together(first: str, first_value, second: str, second_value) -> None:
  """Refuses one of two arguments without the other.

  Raises:
    ValueError: exactly one of them is given.
  """
  if (first_value is None) != (second_value is None):
    raise ValueError(f"{first} and {second}: give both or neither, got only {second if first_value is None else first}")


def check_tokens(input_ids, attention_mask, vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
  """Token ids and mask as arrays.

  Args:
    input_ids: [B, S] integers.
    attention_mask: [B, S], 1 on real tokens and 0 on padding, which is on one side of each row, or None: all are real.
    vocab_size: ids must be below it.

  Returns:
    [B, S] int32 ids and [B, S] bool mask.

  Raises:
    ValueError: wrong shapes or types, an empty row, padding between tokens, or an id outside the vocabulary.
  """
  input_ids = checks.whole_array("input_ids", input_ids, "integers [batch, length]")
  if input_ids.ndim != 2 or not input_ids.size:
    raise ValueError(f"input_ids: got {input_ids.dtype} of shape {input_ids.shape}, must be integers [batch, length]")
  mask = np.ones(input_ids.shape, bool) if attention_mask is None else _check_mask(attention_mask, input_ids.shape)
  real = input_ids[mask]
  if real.min() < 0 or real.max() >= vocab_size:
    raise ValueError(f"input_ids: from {real.min()} to {real.max()}, the vocabulary has ids 0 to {vocab_size - 1}")
  return input_ids.astype(np.int32), mask


def check_pixels(name: str, pixels) -> np.ndarray:
  """Pixels as float32.

  Args:
    name: of the argument.
    pixels: numbers of any shape.

  Raises:
    ValueError: no numbers, or numbers that are not finite or far too large.
  """
  pixels = checks.real_array(name, pixels, "an array of numbers")
  if pixels.size:
    low, high = pixels.min(), pixels.max()  # NaN if any is
    if not -LARGEST_PIXEL <= low <= high <= LARGEST_PIXEL:
      raise ValueError(
        f"{name}: got numbers from {low} to {high}, must be finite and from {-LARGEST_PIXEL:g} to {LARGEST_PIXEL:g}; "
        "image processors normalize pixels to about -3 to 3"
      )
  return pixels.astype(np.float32, copy=False)


def _check_mask(attention_mask, shape) -> np.ndarray:
  mask = checks.mask("attention_mask", attention_mask, "1 on tokens and 0 on padding, [batch, length]")
  if mask.shape != shape:
    raise ValueError(f"attention_mask: got shape {mask.shape}, input_ids have {shape}")
  if not mask.any(axis=1).all():
    raise ValueError(f"attention_mask: rows {np.flatnonzero(~mask.any(axis=1)).tolist()} have no token")
  # Padding on one side changes once along a row.
  holes = np.flatnonzero((mask[:, 1:] != mask[:, :-1]).sum(axis=1) > 1)
  if holes.size:
    raise ValueError(
      f"attention_mask: row {holes[0]} has {np.count_nonzero(~mask[holes[0]])} zeros that are not all at one end; "
      "padding belongs before or after a row's tokens"
    )
  return mask


def query_mask(tokens: np.ndarray, visual: np.ndarray, vision_end_id: int | None, end_ids: tuple[int, ...]) -> np.ndarray:
  """The instruction tokens of one prompt (docs/method.md, "Query tokens").

  They run from just after the last vision-end token, or the last visual token where there is none, up to the last
  end-of-message token after that start, or to the prompt's end. If that is empty, the vision-end token is the query.

  Args:
    tokens: [S] ids without padding.
    visual: [S] bool, visual placeholders.
    vision_end_id: the vision-end token, or None for models without.
    end_ids: end-of-message tokens.

  Returns:
    [S] bool; all False for a prompt without visual tokens.
  """
  mask = np.zeros(tokens.shape, bool)
  if not visual.any():
    return mask
  ends = np.flatnonzero(tokens == vision_end_id) if vision_end_id is not None else np.zeros(0, int)
  start = (ends if ends.size else np.flatnonzero(visual))[-1] + 1
  stops = np.flatnonzero(np.isin(tokens, end_ids))
  stops = stops[stops > start]
  mask[start : stops[-1] if stops.size else len(tokens)] = True
  if not mask.any() and ends.size:
    mask[ends[-1]] = True
  return mask


def plan_prompts(
  text: DecoderConfig,
  tokens: np.ndarray,
  mask: np.ndarray,
  pictures: Mapping[int, Pictures],
  vision_end_id: int | None = None,
  end_ids: tuple[int, ...] = (),
) -> tuple[Prompt, tuple[tuple[View, ...], ...]]:
  """Lays out a batch of prompts: positions, slots and query tokens, padded to buckets.

  Positions grow by one per text token. After a picture, text continues from the picture's largest position plus one.

  Args:
    text: the decoder.
    tokens: [B, S] of `check_tokens`.
    mask: [B, S] of `check_tokens`.
    pictures: by placeholder id; their `used` advances.
    vision_end_id: as in `query_mask`.
    end_ids: as in `query_mask`.

  Returns:
    The prompt, and each row's views.

  Raises:
    ValueError: placeholders that do not match the pictures, or a prompt longer than the model's positions.
  """
  rows, next_positions, views = [], [], []
  for number, (row, real) in enumerate(zip(tokens, mask)):
    plan, following, shown = _plan_row(row[real], number, pictures, text.position_axes)
    rows.append({**plan, "query": query_mask(plan["tokens"], plan["visual"], vision_end_id, end_ids)})
    next_positions.append(following)
    views.append(tuple(View(picture, *view) for picture, grids in enumerate(shown) for view in grids))
  for some in pictures.values():
    if some.used != len(some.slots):
      raise ValueError(
        f"{some.argument}: {len(some.slots)} {some.noun}s, but input_ids hold the placeholders of {some.used}"
      )
  return pack_prompt(rows, next_positions, text.max_position_embeddings), tuple(views)


def _plan_row(tokens, number, pictures, axes):
  """One prompt's arrays except its query, the position of its answer, and the views of its pictures."""
  visual = np.isin(tokens, list(pictures))
  positions = np.zeros([len(tokens), axes], np.int64)  # beyond int32 only in prompts that are refused
  slots, places, drawn = np.zeros(len(tokens), np.int32), np.arange(len(tokens)), np.arange(len(tokens))
  curve = np.zeros(len(tokens), np.int32)
  at, position, shown = 0, 0, []
  while at < len(tokens):
    if not visual[at]:
      run = int(np.argmax(visual[at:])) if visual[at:].any() else len(tokens) - at
      positions[at : at + run] = np.arange(position, position + run)[:, None]
      at, position = at + run, position + run
      continue
    some = pictures[int(tokens[at])]
    if some.used == len(some.slots):
      raise ValueError(
        f"{some.argument}: prompt {number} has a placeholder for {some.kind} {some.used}, but there are "
        f"{len(some.slots)} {some.noun}s"
      )
    count = len(some.slots[some.used])
    run = tokens[at : at + count]
    if len(run) < count or (run != tokens[at]).any():
      found = int(np.argmax(run != tokens[at])) if (run != tokens[at]).any() else len(run)
      raise ValueError(
        f"{some.argument}: {some.kind} {some.used} has {some.noun} {list(some.sizes[some.used])}, so {count} "
        f"placeholders, but prompt {number} has {found}"
      )
    positions[at : at + count] = np.add(some.positions[some.used], position, dtype=np.int64)
    slots[at : at + count] = some.slots[some.used]
    if some.places is not None:
      places[at : at + count] = len(tokens) + some.places[some.used]
    if some.drawn is not None:
      drawn[at : at + count] = at + some.drawn[some.used]
    curve[drawn[at : at + count]] = visual[:at].sum() + z_order(some.views[some.used])
    shown += some.views[some.used]
    some.used += 1
    position = int(positions[at : at + count].max()) + 1
    at += count
  plan = dict(
    tokens=tokens, visual=visual, drawn=drawn[visual], slots=slots, positions=positions, places=places, curve=curve
  )
  return plan, position, shown


def z_order(grids: Sequence[Sequence[tuple[int, int, bool]]]) -> np.ndarray:
  """Where each cell of a picture is on a curve that finishes each view, and in it one block after the other (Z-order).

  A view of 2 x 4 tokens is visited in the order

    0 1 4 5
    2 3 6 7

  Args:
    grids: (rows, columns, newlines) of the views of each temporal slice, as `Pictures.views` holds them.

  Returns:
    [count] int32, one number per token of the picture, in the order of the views' cells.
  """
  keys, bits = [], np.arange(16)
  spread = lambda values: ((values[:, None] >> bits & 1) << 2 * bits).sum(axis=1)
  for rows, columns, newlines in (view for views in grids for view in views):
    row, column = np.divmod(np.arange(rows * (columns + newlines)), columns + newlines)
    keys.append((len(keys) << 32) + 2 * spread(row) + spread(column))
  return np.argsort(np.argsort(np.concatenate(keys), kind="stable")).astype(np.int32)


def pack_prompt(rows: list[dict[str, np.ndarray]], next_positions: list[int], max_positions: int) -> Prompt:
  """Splits prompts into text and visual tokens and pads both to buckets.

  Args:
    rows: for each prompt, arrays over its S real tokens: `tokens` int, `visual` bool, `slots` int (encoder row of each
      visual token), `positions` [S, A] int, `places` and `curve` int (see `Prompt`), `query` bool; and `drawn`, the visual
      indices in the order in which they fill the slots.
    next_positions: rotary position at which each prompt's answer starts.
    max_positions: the model's limit.

  Raises:
    ValueError: a prompt longer than the model's positions.
  """
  for number, (row, following) in enumerate(zip(rows, next_positions)):
    if max(len(row["tokens"]), following) > max_positions:
      raise ValueError(
        f"input_ids: prompt {number} has {len(row['tokens'])} tokens and reaches position "
        f"{following - 1}, the model has {max_positions} positions"
      )

  def pad(name, select, size, fill=0):
    first = rows[0][name]
    out = np.full((len(rows), size) + first.shape[1:], fill, bool if first.dtype == bool else np.int32)
    for number, row in enumerate(rows):
      values = row[name][select(row)]
      out[number, : len(values)] = values
    return out

  rows = [{**row, "order": np.arange(len(row["tokens"]))} for row in rows]
  is_text = lambda row: ~row["visual"]
  is_visual = lambda row: row["drawn"]
  text = bucket(max(int(is_text(row).sum()) for row in rows), TEXT_MINIMUM)
  visual = bucket(max(len(is_visual(row)) for row in rows), VISUAL_MINIMUM)
  return Prompt(
    text_tokens=pad("tokens", is_text, text),
    text_order=pad("order", is_text, text, -1),
    text_positions=pad("positions", is_text, text),
    query_mask=pad("query", is_text, text),
    visual_slots=pad("slots", is_visual, visual),
    visual_order=pad("order", is_visual, visual, -1),
    visual_positions=pad("positions", is_visual, visual),
    visual_curve=pad("curve", is_visual, visual),
    visual_places=pad("places", is_visual, visual),
    next_position=np.asarray(next_positions, np.int32),
  )
