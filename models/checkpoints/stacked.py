"""Kernels of experts that a checkpoint stores one by one, as the stacked tensors that others store.

`experts.3.gate_proj.weight` [I, D] and its like become `experts.gate_up_proj` [E, D, 2 I] and `experts.down_proj` [E, I, D].
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import dataclasses
import re
from typing import Any

import numpy as np

# For each stacked tensor, what its experts' parts are called, side by side.
_PARTS = {"gate_up_proj": ("gate_proj", "up_proj"), "down_proj": ("down_proj",)}
_SINGLE = re.compile(r"(.*\.experts)\.(\d+)\.(gate|up|down)_proj\.weight")


@dataclasses.dataclass(frozen=True)
class Stacked:
  """Takes the place of an open file of tensors; all its tensors are this one.

  Attributes:
    experts: for each of them its parts, which are joined along the output: tensor and file.
  """

  experts: Sequence[Sequence[tuple[str, Any]]]

  def get_slice(self, tensor: str) -> Stacked:
    """What has a shape, a dtype and rows."""
    del tensor
    return self

  def get_tensor(self, tensor: str) -> np.ndarray:
    """The whole."""
    return self.get_slice(tensor)[(slice(None),)]

  def get_shape(self) -> list[int]:
    """E, in, out; the experts are alike, or joining them fails."""
    shapes = [file.get_slice(tensor).get_shape() for tensor, file in self.experts[0]]
    return [len(self.experts), shapes[0][1], sum(shape[0] for shape in shapes)]

  def get_dtype(self) -> str:
    """As safetensors calls it."""
    tensor, file = self.experts[0][0]
    return file.get_slice(tensor).get_dtype()

  def __getitem__(self, index) -> np.ndarray:
    """Some experts, read one at a time."""
    some = [np.concatenate([file.get_tensor(tensor) for tensor, file in parts]).T for parts in self.experts[index[0]]]
    return np.stack(some)[(slice(None), *index[1:])]


def join(tensors: Mapping[str, list[tuple[str, Any]]]) -> dict[str, list[tuple[str, Any]]]:
  """Tensors and their files by dotted path, with every layer's single experts as stacked ones.

  Experts of which a part is missing stay as they are.

  Args:
    tensors: by dotted path, the names in the files that have it, and these files.
  """
  layers: dict[str, dict[int, set[str]]] = {}
  for name in tensors:
    if match := _SINGLE.fullmatch(name):
      layers.setdefault(match[1], {}).setdefault(int(match[2]), set()).add(f"{match[3]}_proj")
  joined = dict(tensors)
  for layer, experts in layers.items():
    if sorted(experts) != [*range(len(experts))] or any(len(parts) < 3 for parts in experts.values()):
      continue
    for name, parts in _PARTS.items():
      found = [[joined.pop(f"{layer}.{number}.{part}.weight")[0] for part in parts] for number in range(len(experts))]
      joined[f"{layer}.{name}"] = [(found[0][0][0], Stacked(found))]
  return joined
