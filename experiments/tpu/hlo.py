"""What a compiled program costs on a chip: operations, bytes and messages, and the seconds that follow from published peaks.

XLA's own estimate of seconds is not used: it can be negative for programs with Pallas calls or asynchronous copies. The work
of a loop's body is counted once.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import re

import jax
import numpy as np

_ITEM_BYTES = {
  "pred": 1,
  "s8": 1,
  "u8": 1,
  "bf16": 2,
  "f16": 2,
  "s16": 2,
  "u16": 2,
  "f32": 4,
  "s32": 4,
  "u32": 4,
  "f64": 8,
  "s64": 8,
  "u64": 8,
}
_KINDS = ("all-gather", "all-reduce", "reduce-scatter", "all-to-all", "ragged-all-to-all", "collective-permute")
_COLLECTIVE = re.compile(rf" = (.*?) ({'|'.join(_KINDS)})(-start)?\((.*)")
_KERNEL_FLOPS = re.compile(r'"cost_estimate":\{"flops":"?(\d+)')
_MEMORY_NEEDED = re.compile(r"Used ([\d.]+)([KMG]) of [\d.]+[KMG] hbm")
_TEMPORARIES_NEEDED = re.compile(r"for HLO temporaries \(([\d.]+)([KMG])\)")


@dataclasses.dataclass(frozen=True)
class Chip:
  """Published peaks of a chip.

  Attributes:
    flops: floating-point operations per second in bfloat16.
    bandwidth: of its memory, in bytes per second.
    memory: its bytes.
    interconnect: bytes per second over all its links to other chips.
  """

  flops: float
  bandwidth: float
  memory: float
  interconnect: float


# From the pages "TPU v5e", "TPU v5p" and "TPU v6e" of Google Cloud's documentation.
CHIPS = {
  "v5e": Chip(flops=197e12, bandwidth=819e9, memory=16e9, interconnect=1600e9 / 8),
  "v5p": Chip(flops=459e12, bandwidth=2765e9, memory=95e9, interconnect=4800e9 / 8),
  "v6e": Chip(flops=918e12, bandwidth=1640e9, memory=32e9, interconnect=3584e9 / 8),
}


@dataclasses.dataclass(frozen=True)
class Collective:
  """A message among chips.

  Attributes:
    kind: its name in HLO.
    result: bytes of its result on each chip.
    group: number of chips that take part.
  """

  kind: str
  result: int
  group: int

  @property
  def moved(self) -> float:
    """Bytes that a chip receives if the chips form a ring."""
    if self.kind == "all-reduce":
      return 2 * self.result * (self.group - 1) / self.group
    if self.kind == "reduce-scatter":
      return self.result * (self.group - 1)
    return self.result if self.kind == "collective-permute" else self.result * (self.group - 1) / self.group


@dataclasses.dataclass(frozen=True)
class Cost:
  """What a program costs on each chip.

  Attributes:
    flops: floating-point operations, kernels included.
    kernel_flops: those of kernels, which count whole squares of attention.
    bytes_accessed: in the chip's memory.
    collectives: for each kind of message, their number and the bytes that a chip receives; None: unknown, since libtpu's
      program is in a form that this jaxlib cannot read.
    temporaries: bytes in use while it runs, beside arguments and results.
    outputs: bytes of results that do not replace arguments.
    compile_seconds: on this machine.
  """

  flops: float
  kernel_flops: float
  bytes_accessed: float
  collectives: dict[str, tuple[int, float]] | None
  temporaries: int
  outputs: int
  compile_seconds: float

  @property
  def moved(self) -> float:
    """Bytes that a chip receives; 0 where they are unknown."""
    return sum(moved for _, moved in (self.collectives or {}).values())


@dataclasses.dataclass(frozen=True)
class Seconds:
  """Lower bounds of a program's seconds, one from each limit of a chip."""

  compute: float
  memory: float
  interconnect: float

  @property
  def total(self) -> float:
    """Arithmetic and memory access overlap; messages are added."""
    return max(self.compute, self.memory) + self.interconnect


def read(compiled, compile_seconds: float) -> Cost:
  """Cost of a compiled program.

  Args:
    compiled: of `jax.jit(...).lower(...).compile()`.
    compile_seconds: how long that took.
  """
  analysis, memory = compiled.cost_analysis(), compiled.memory_analysis()
  try:
    text = compiled.as_text()
  except jax.errors.JaxRuntimeError:
    text = None
  return Cost(
    flops=float(analysis.get("flops", 0)),
    kernel_flops=float(sum(map(int, _KERNEL_FLOPS.findall(text or "")))),
    bytes_accessed=float(analysis.get("bytes accessed", 0)),
    collectives=None if text is None else summed(text),
    temporaries=memory.temp_size_in_bytes,
    outputs=memory.output_size_in_bytes - memory.alias_size_in_bytes,
    compile_seconds=compile_seconds,
  )


def summed(text: str) -> dict[str, tuple[int, float]]:
  """Messages of a program's HLO by kind: their number, and the bytes that a chip receives."""
  totals = collections.defaultdict(lambda: (0, 0.0))
  for collective in collectives(text):
    count, moved = totals[collective.kind]
    totals[collective.kind] = count + 1, moved + collective.moved
  return dict(totals)


def collectives(text: str) -> list[Collective]:
  """Messages in a program's HLO, the text of `compiled.as_text()`."""
  found, channels = [], set()
  for shapes, kind, started, rest in _COLLECTIVE.findall(text):
    # XLA repeats a message in every fusion beside which it runs, so each channel counts once.
    channel = re.search(r"channel_id=(\d+)", rest)
    if channel and (kind, channel[1]) in channels:
      continue
    channels.add((kind, channel and channel[1]))
    sizes = [
      _ITEM_BYTES[dtype] * math.prod(map(int, dims.split(",")))
      for dtype, dims in re.findall(r"\b([a-z]+\d*)\[([\d,]+)\]", shapes)
      if dtype in _ITEM_BYTES
    ]
    if started and kind in ("all-gather", "collective-permute"):
      sizes = sizes[len(sizes) // 2 :]  # operands come first
    found.append(Collective(kind, sum(sizes), _group(rest)))
  return found


def _group(rest: str) -> int:
  """Number of chips that take part, in any notation of HLO; 2 where it lists pairs."""
  if match := re.search(r"replica_groups=\[\d+,(\d+)\]", rest):
    return int(match[1])
  if match := re.search(r"replica_groups=\{\{([\d,]+)\}", rest):
    return match[1].count(",") + 1
  if match := re.search(r"replica_groups=mesh\[(.*?)\] ?\{(.*?)\}", rest):
    sizes = dict(re.findall(r"'(\w+)'=(\d+)", match[1]))
    return math.prod(int(sizes[axis]) for axis in re.findall(r"'(\w+)'", match[2]))
  return 2


def predict(cost: Cost, chip: Chip, causal: bool, least: float = 0.0) -> Seconds:
  """Lower bounds of a program's seconds.

  Args:
    cost: of the program.
    chip: that runs it.
    causal: whether its kernels skip the half of each square that no query sees.
    least: FLOPs per chip that the model cannot avoid. The program may report fewer, since a loop's body counts once; where
      its kernels are unknown, only these are used.
  """
  flops = 0 if cost.collectives is None else cost.flops - (cost.kernel_flops / 2 if causal else 0)
  return Seconds(max(flops, least) / chip.flops, cost.bytes_accessed / chip.bandwidth, cost.moved / chip.interconnect)


def memory_needed(error: Exception, held: float) -> float | None:
  """Bytes per chip that a program needs, if the compiler refused it for lack of memory; None: another error.

  Args:
    error: of the compiler.
    held: bytes per chip of the program's arguments, which the compiler does not always count.
  """
  if "RESOURCE_EXHAUSTED" not in str(error):
    return None
  size = lambda match: float(match[1]) * 1024 ** (1 + "KMG".index(match[2]))
  if match := _MEMORY_NEEDED.search(str(error)):
    return size(match)
  match = _TEMPORARIES_NEEDED.search(str(error))
  return held + size(match) if match else math.nan


def shard_bytes(tree) -> int:
  """Bytes per chip of arrays or abstract shapes; those without a sharding are whole on every chip."""

  def size(x):
    sharding = getattr(x, "sharding", None)
    shape = np.shape(x) if sharding is None else sharding.shard_shape(x.shape)
    return math.prod(shape) * np.dtype(x.dtype).itemsize

  return sum(map(size, jax.tree.leaves(tree)))


def on_mesh(tree, shardings):
  """Abstract shapes of arrays, with the shardings of a tree like theirs."""
  put = lambda x, sharding: jax.ShapeDtypeStruct(np.shape(x), x.dtype, sharding=sharding)
  return jax.tree.map(put, tree, shardings)
