"""Values and arrays that have no business being where they are."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np

JSON_JUNK = (
  *(None, True, False, -1, 0, 1, 2, 1.5, 0.0, float("nan"), float("inf"), -float("inf")),
  *(2**31, 2**31 - 1, -(2**31), 2**62, 2**63, 2**70, 10**400, 1e300, 1e-300),
  *("", "a", "1", "a\0b", "a" * 300, "\ud800", "../../x", "/dev/zero"),
  *([], [1], [None], [[1], [1, 2]], {}, {"a": 1}),
)
JUNK = (*JSON_JUNK, 10**5000, 1j, b"a", (), object())
_NUMBERS = (np.nan, np.inf, -np.inf, -1, 0, 1, 2, 0.5, 1e30, -1e38, 1e300, 2**31, 2**62, -(2**62))
_DTYPES = (bool, np.int8, np.uint8, np.int64, np.uint64, np.float16, np.float64, complex, object, str)


def choose(rng: np.random.Generator, values) -> Any:
  """One of some values; of a list or dict, a copy, which may be changed."""
  value = values[int(rng.integers(len(values)))]
  return copy.deepcopy(value) if isinstance(value, (list, dict)) else value


def array(rng: np.random.Generator, values) -> Any:
  """An array with another element, type, shape or order, or no array at all."""
  values = np.asarray(values)
  kind = rng.integers(10)
  if kind < 4 and values.size:
    number = choose(rng, _NUMBERS)
    changed = values.astype(np.int64 if isinstance(number, int) and values.dtype.kind in "biu" else np.float64)
    changed.reshape(-1)[rng.integers(values.size, size=rng.integers(1, 4))] = number
    return changed
  if kind < 6:
    with np.errstate(all="ignore"):
      return values.astype(choose(rng, _DTYPES))
  if kind < 8 and values.size:
    axis = int(rng.integers(max(values.ndim, 1)))
    changes = (
      lambda: values[None],
      lambda: values[..., None],
      lambda: values.reshape(-1),
      lambda: values[:0],
      lambda: np.take(values, range(values.shape[axis] - 1), axis),
      lambda: np.concatenate([values, np.take(values, [0], axis)], axis),
      lambda: np.flip(values, axis),
      lambda: values.tolist(),
    )
    return choose(rng, changes)()
  return choose(rng, JUNK)


def some(rng: np.random.Generator, arguments: dict[str, Any]) -> dict[str, Any]:
  """Arguments of which one or two are spoiled or missing."""
  arguments = dict(arguments)
  for name in rng.choice(list(arguments), rng.integers(1, 3)).tolist():
    if isinstance(arguments.get(name), np.ndarray):
      arguments[name] = array(rng, arguments[name])
    elif rng.integers(8):
      arguments[name] = choose(rng, JUNK)
    else:
      arguments.pop(name, None)
  return arguments


def tree(rng: np.random.Generator, content: dict[str, Any], more: tuple[str, ...] = ()) -> dict[str, Any]:
  """The content of a JSON file, of which one to three values, at any depth, are spoiled or missing.

  Args:
    rng: source of the changes.
    content: of the file.
    more: keys that the file may have, too.
  """
  content = copy.deepcopy(content)
  for _ in range(rng.integers(1, 4)):
    place = content
    while True:
      key = choose(rng, [*place, *(more if place is content else ())] or ["a"])
      if isinstance(place.get(key), dict) and rng.integers(6):
        place = place[key]
        continue
      break
    if rng.integers(8):
      place[key] = _json_value(rng, place.get(key))
    else:
      place.pop(key, None)
  return content


def data(rng: np.random.Generator, content: bytes) -> bytes:
  """Bytes of which some are others, or the last are missing."""
  changed = bytearray(content)
  for _ in range(int(rng.choice([1, 1, 2, 5, 20]))):
    changed[rng.integers(min(len(changed), int(rng.choice([64, 200, len(changed)]))))] = rng.integers(256)
  return bytes(changed[: rng.integers(len(changed))] if rng.random() < 0.2 else changed)


def text(rng: np.random.Generator, content: dict[str, Any], more: tuple[str, ...] = ()) -> bytes:
  """`tree` as the bytes of a JSON file, or bytes that are no JSON."""
  if rng.integers(5):
    return json.dumps(tree(rng, content, more)).encode()
  broken = (b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, data(rng, json.dumps(content).encode()))
  return choose(rng, broken)


def _json_value(rng, value):
  """A value near the one that is there, or any other."""
  if type(value) is int and abs(value) < 2**64 and rng.integers(2):
    return choose(rng, (value + 1, value - 1, 2 * value, -value, value // 2, float(value), str(value), 3 * value + 1))
  return choose(rng, JSON_JUNK)
