"""Offline head importance: published vectors, files, and the estimate from ablation drops (docs/method.md).

Axes: H query heads of the first layer, J calibration datasets.
"""

from __future__ import annotations

from collections.abc import Sequence
import json
import os
import pathlib
from typing import Any
import warnings

import numpy as np

from hawk_jax import checks

# As the authors' code contains it (github peppery77/HAWK). It sums to 1.2616 and is normalized when loaded, which does not
# change the ranking of visual tokens.
PRESETS: dict[str, Sequence[float]] = {
  "qwen2.5-vl-7b": (
    0.0875,
    0.3000,
    0.0480,
    0.0321,
    0.0104,
    0.0102,
    0.0336,
    0.0460,
    0.0540,
    0.0472,
    0.0234,
    0.0537,
    0.0109,
    0.0573,
    0.0276,
    0.0403,
    0.0429,
    0.0352,
    0.0162,
    0.0519,
    0.0553,
    0.0266,
    0.0222,
    0.0480,
    0.0337,
    0.0250,
    0.0000,
    0.0224,
  ),
}
_MOST_HEADS = 2**16


def from_ablation(drops: np.ndarray) -> np.ndarray:
  """Head importance from the drop in score that ablating each head causes (Equations 1 to 3).

  For each dataset j the drops are shifted by their minimum over heads and divided by their sum; the weight is the mean over
  datasets. A dataset in which all heads have the same drop holds no information about heads and is skipped with a warning.

  Args:
    drops: [H, J] or [H], S_base[j] - S_ablated[h, j].

  Returns:
    [H] float32, non-negative, summing to 1.

  Raises:
    ValueError: no heads or datasets, drops that are not finite, or no dataset in which heads differ.
  """
  drops = _numbers("drops", drops, np.float64)
  if drops.ndim == 1:
    drops = drops[:, None]
  if drops.ndim != 2 or not drops.size:
    raise ValueError(f"drops: got shape {drops.shape}, must be [heads, datasets] or [heads], not empty")
  if not np.isfinite(drops).all():
    raise ValueError(f"drops: {np.count_nonzero(~np.isfinite(drops))} values are not finite")
  shifted = drops - drops.min(axis=0)
  totals = shifted.sum(axis=0)
  if not np.isfinite(totals).all():
    raise ValueError(f"drops: from {drops.min()} to {drops.max()}, which is too large to add up")
  informative = totals > 0
  if not informative.any():
    raise ValueError(f"drops: in all {drops.shape[1]} datasets every head has the same drop, so no head is more important")
  if not informative.all():
    warnings.warn(f"drops: skipped datasets {np.flatnonzero(~informative).tolist()}, where every head has the same drop")
  return (shifted[:, informative] / totals[informative]).mean(axis=1).astype(np.float32)


def validate(head_importance, num_heads: int | None = None) -> np.ndarray:
  """Checks an importance array and returns it as float32.

  Args:
    head_importance: [H] or [B, H] numbers.
    num_heads: H of the model, if known.

  Raises:
    ValueError: no numbers, wrong shape or length, negative, all zero, or not finite.
  """
  weights = _numbers("head_importance", head_importance, np.float32)
  if weights.ndim not in (1, 2) or not weights.size:
    raise ValueError(f"head_importance: got shape {weights.shape}, must be [heads] or [batch, heads]")
  if num_heads is not None and weights.shape[-1] != num_heads:
    raise ValueError(f"head_importance: got {weights.shape[-1]} weights, the model's first layer has {num_heads} heads")
  if not np.isfinite(weights).all():
    raise ValueError("head_importance: contains values that are not finite")
  if (weights < 0).any():
    raise ValueError(f"head_importance: must not be negative, the smallest is {weights.min()}")
  if not (weights.max(axis=-1) > 0).all():
    raise ValueError("head_importance: all weights are zero, at least one must be positive")
  return weights


def load(source: str | os.PathLike, num_heads: int | None = None) -> np.ndarray:
  """Head importance from a preset, a JSON file, or uniform.

  Args:
    source: `preset:NAME`, `uniform`, or the path of a JSON file that holds a list of numbers or an object with one under
      `head_importance`.
    num_heads: H of the model, if known. With it, `uniform` has H weights (else [1], which stands for any number of heads),
      and others are checked to have H.

  Returns:
    [H] float32, summing to 1.

  Raises:
    ValueError: an unknown preset, an unreadable or malformed file, or weights that `validate` refuses.
  """
  _check_source(source)
  if num_heads is not None:
    checks.whole("num_heads", num_heads, 1, _MOST_HEADS)
  if source == "uniform":
    return np.full([num_heads or 1], 1.0 / (num_heads or 1), np.float32)
  if (name := _preset(source)) is not None:
    if name not in PRESETS:
      raise ValueError(f"head_importance: unknown preset {name!r}, there are: {', '.join(PRESETS)}")
    found = PRESETS[name]
  else:
    found = _read(source)
  weights = validate(found, num_heads).astype(np.float64)
  return (weights / weights.sum()).astype(np.float32)


def details(source: str | os.PathLike) -> dict[str, Any]:
  """What `save` wrote beside the weights; empty for a preset, `uniform` or a file that holds only weights.

  Raises:
    ValueError: an unreadable file.
  """
  _check_source(source)
  content = {} if source == "uniform" or _preset(source) is not None else _content(source)
  return {key: value for key, value in content.items() if key != "head_importance"} if isinstance(content, dict) else {}


def save(path: str | os.PathLike, head_importance, **details) -> None:
  """Writes an importance array, and how it was made, as JSON that `load` reads.

  Args:
    path: file to write.
    head_importance: [H] numbers.
    **details: anything JSON can hold: drops, settings, hashes.
  """
  content = {"head_importance": validate(head_importance).tolist(), **details}
  pathlib.Path(path).write_text(json.dumps(content, indent=1) + "\n")


def _check_source(source) -> None:
  if not isinstance(source, (str, os.PathLike)):
    raise ValueError(
      f"head_importance: got {checks.show(source)}, must be a JSON file, `uniform` or preset:{' | preset:'.join(PRESETS)}"
    )


def _preset(source) -> str | None:
  """NAME of `preset:NAME`, or None."""
  return source.removeprefix("preset:") if isinstance(source, str) and source.startswith("preset:") else None


def _numbers(name, values, dtype) -> np.ndarray:
  with np.errstate(over="ignore"):  # what overflows is not finite, which is reported
    return checks.real_array(name, values, "an array of numbers").astype(dtype)


def _content(source):
  try:
    return json.loads(checks.read_file(source))
  except OSError as error:
    raise ValueError(
      f"head_importance: cannot read {str(source)!r} ({error.strerror}); give a JSON file, `uniform` or "
      f"preset:{' | preset:'.join(PRESETS)}"
    ) from error
  except (ValueError, RecursionError) as error:
    raise ValueError(f"head_importance: {source} is not JSON ({error})") from error


def _read(source):
  content = _content(source)
  weights = content.get("head_importance") if isinstance(content, dict) else content
  if not isinstance(weights, list) or not all(isinstance(w, (int, float)) and not isinstance(w, bool) for w in weights):
    raise ValueError(f"head_importance: {source} must hold a list of numbers, or an object with one under 'head_importance'")
  return weights
