"""Parameter paths and tensor names.

A parameter's path is its tensor's name, so one rule serves every port: `layers_3/mlp/up_proj/kernel` is
`layers.3.mlp.up_proj.weight`. Kernels are transposed, [in, out] here and [out, in] there. Parameters that belong to no
Flax layer keep their own name. A port adds the prefixes that its checkpoints have used over time.
"""

from __future__ import annotations

from collections.abc import Mapping
import dataclasses
import math
import re

# What Flax layers call the tensors that PyTorch calls weight.
_WEIGHTS = ("kernel", "scale", "embedding")


@dataclasses.dataclass(frozen=True)
class Names:
  """How a port's parameters are called in checkpoints.

  Attributes:
    renames: (pattern, replacement) pairs that turn any tensor name ever used into the parameter's dotted path; the first
      pattern that matches is applied.
    prefixes: prefix of a dotted path to what replaces it in a saved checkpoint; every path begins with one of them.
  """

  renames: tuple[tuple[str, str], ...]
  prefixes: Mapping[str, str]

  def canonical(self, tensor: str) -> str:
    """The dotted path of a tensor."""
    for pattern, replacement in self.renames:
      if re.match(pattern, tensor):
        return re.sub(pattern, replacement, tensor, count=1)
    return tensor

  def saved(self, dotted: str) -> str:
    """The tensor name of a dotted path."""
    prefix = next(prefix for prefix in self.prefixes if dotted.startswith(prefix))
    return self.prefixes[prefix] + dotted.removeprefix(prefix)


def dotted(path: tuple[str, ...]) -> str:
  """('layers_3', 'mlp', 'up_proj', 'kernel') to 'layers.3.mlp.up_proj.weight'."""
  parts = [re.sub(r"_(\d+)$", r".\1", part) for part in path[:-1]]
  return ".".join(parts + ["weight" if path[-1] in _WEIGHTS else path[-1]])


def flat_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
  """Shape of a parameter whose output axes are merged into one: [in, out] of a kernel, [out] of a bias."""
  if name == "kernel":
    return shape[0], math.prod(shape[1:])
  return (math.prod(shape),) if name == "bias" else tuple(shape)


def torch_shape(path: tuple[str, ...], shape: tuple[int, ...]) -> list[int]:
  """Shape of a parameter's tensor in a checkpoint."""
  flat = list(flat_shape(path[-1], shape))
  return flat[::-1] if path[-1] == "kernel" else flat


def fits(path: tuple[str, ...], stored: tuple[int, ...], shape: tuple[int, ...]) -> bool:
  """Whether a stored tensor fits a parameter; convolutions over whole patches are kernels too."""
  if path[-1] == "kernel" and len(stored) > 2:
    stored = (stored[0], math.prod(stored[1:]))
  return list(stored) == torch_shape(path, shape)
