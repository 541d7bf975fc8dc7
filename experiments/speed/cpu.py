"""Measures every workaround in models/cpu.py beside what it replaces, at the sizes of the preset `cpu` of the benchmark.

  python -m experiments.speed.cpu

Results are compared before anything is timed. Prints two Markdown tables: every case, and the one in the docstring of
models/cpu.py. There is no --mesh, since the workarounds are for one CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.reporting import tables
from experiments.running import command
from experiments.running import environment
from experiments.speed import timing
from models import cpu
from models import rope
from models.attention import dispatch
from models.attention import xla

# Largest difference, relative to the largest value.
_TOLERANCES = {"float32": 1e-5, "bfloat16": 2e-2}
# The decoder and the tower of experiments/configs/cpu.
_HIDDEN, _INTERMEDIATE, _VOCABULARY, _HEADS, _KV_HEADS, _HEAD_DIM = 1024, 2816, 8192, 8, 2, 128
_VISION_HEADS, _VISION_HEAD_DIM = 8, 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """Settings of the command."""

  tokens: int = command.option(828, "Number of tokens in a prompt.", least=1)
  patches: int = command.option(3136, "Number of patches in a picture.", least=2)
  rounds: int = command.option(20, "Number of measurements behind each figure.", least=1)


@dataclasses.dataclass(frozen=True)
class Case:
  """A workaround beside what it replaces.

  Attributes:
    workaround: a key of `REPLACED`.
    shapes: what it is applied to.
    ours: the program with it.
    plain: the program without it.
    dtype: of the arrays.
    read: the part of the results that counts.
  """

  workaround: str
  shapes: str
  ours: Callable[[], jax.Array]
  plain: Callable[[], jax.Array]
  dtype: str
  read: Callable[[jax.Array], jax.Array] = lambda result: result


# The name in models/cpu.py of each workaround, and what it replaces, in words.
REPLACED = {
  "row": ("dot_general", "one row times a weight matrix, as one product"),
  "bfloat16 row": ("dot_general", "one or two rows in bfloat16, as one product"),
  "bfloat16 rows": ("dot_general", "four rows in bfloat16, as one product"),
  "transposed": ("dot_general", "one row in bfloat16 times a transposed weight matrix"),
  "look_up": ("look_up", "rows of a bfloat16 table, in a loop of 15 steps"),
  "bfloat16 product": ("dot_general", "many rows in bfloat16, with a bfloat16 result"),
  "bfloat16 logits": ("matmul", "many rows in float32, where the matmul precision is `bfloat16`"),
  "attend_by_head": ("attend_by_head", "long rows with all heads at once, padding and masked keys included"),
  "kept": ("kept", "cosines and sines computed again by every head, in one layer"),
}


def make_cases(tokens: int, patches: int) -> list[Case]:
  """All measurements.

  Args:
    tokens: of a prompt.
    patches: of a picture.
  """
  draw = functools.partial(_draw, np.random.default_rng(0))
  sizes = ((_HIDDEN, _INTERMEDIATE), (_INTERMEDIATE, _HIDDEN), (_HIDDEN, _VOCABULARY))
  product = lambda name, rows, size, dtype: _product(name, draw(dtype, rows, size[0]), draw(dtype, *size))
  float32 = functools.partial(draw, "float32")
  prompt = tuple(float32(1, tokens, heads, _HEAD_DIM) for heads in (_HEADS, _KV_HEADS, _KV_HEADS))
  pictures = tuple(float32(2, patches, _VISION_HEADS, _VISION_HEAD_DIM) for _ in range(3))
  picture = tuple(x[:1] for x in pictures)
  return [
    *(product("row", 1, size, "float32") for size in sizes),
    *(product("bfloat16 row", 1, size, "bfloat16") for size in sizes),
    product("bfloat16 row", 2, sizes[0], "bfloat16"),
    product("bfloat16 rows", 4, sizes[0], "bfloat16"),
    _product("transposed", draw("bfloat16", 1, _HIDDEN), draw("bfloat16", _VOCABULARY, _HIDDEN), axis=1),
    _look_ups(draw("bfloat16", _VOCABULARY, _HIDDEN), steps=15),
    *(product("bfloat16 product", tokens, size, "bfloat16") for size in sizes[:2]),
    _low_precision(float32(tokens, sizes[0][0]), float32(*sizes[0])),
    _attention(f"a causal prompt of {tokens:,} tokens", *prompt, causal=True),
    _attention(f"a picture of {patches:,} patches", *picture),
    _attention(f"a picture of {patches:,} patches and one of half as many", *pictures, lengths=(patches, patches // 2)),
    _rotation(f"queries and keys of {tokens:,} tokens", *prompt[:2]),
    _rotation(f"queries and keys of {patches:,} patches", *picture[:2]),
  ]


def _draw(rng, dtype, *shape):
  return jnp.asarray(rng.standard_normal(shape, np.float32), dtype)


def _program(function, *args) -> Callable[[], jax.Array]:
  """A function of arrays, compiled; it returns when its result is there."""
  jitted = jax.jit(function)
  return lambda: jax.block_until_ready(jitted(*args))


def _product(workaround, rows, matrix, axis: int = 0) -> Case:
  """Rows times a matrix, along one of the matrix's axes."""
  numbers = (((1,), (axis,)), ((), ()))
  program = lambda product: _program(functools.partial(product, dimension_numbers=numbers), rows, matrix)
  shapes = f"[{len(rows):,}, {rows.shape[1]:,}] times [{matrix.shape[0]:,}, {matrix.shape[1]:,}]"
  return Case(workaround, shapes, program(cpu.dot_general), program(jax.lax.dot_general), rows.dtype.name)


def _look_ups(table, steps: int) -> Case:
  """Sums of rows of a table, looked up one after another."""

  def total(look_up, table):
    step = lambda number, out: out + look_up(table, number[None]).astype(jnp.float32)
    return jax.lax.fori_loop(0, steps, step, jnp.zeros((1, table.shape[1])))

  program = lambda look_up: _program(functools.partial(total, look_up), table)
  shapes = f"[{table.shape[0]:,}, {table.shape[1]:,}]"
  return Case("look_up", shapes, program(cpu.look_up), program(functools.partial(jnp.take, axis=0)), table.dtype.name)


def _low_precision(rows, matrix) -> Case:
  def in_bfloat16(rows, matrix):
    with jax.default_matmul_precision("bfloat16"):
      return cpu.matmul(rows, matrix)

  shapes = f"[{len(rows):,}, {matrix.shape[0]:,}] times [{matrix.shape[0]:,}, {matrix.shape[1]:,}]"
  return Case("bfloat16 logits", shapes, _program(in_bfloat16, rows, matrix), _program(jnp.matmul, rows, matrix), "bfloat16")


def _attention(shapes: str, query, key, value, causal: bool = False, lengths: Sequence[int] | None = None) -> Case:
  """Attention of [B, T, N, d] queries to [B, T, G, d] keys and values."""
  query = query.reshape(*query.shape[:2], key.shape[2], -1, query.shape[3]).transpose(0, 2, 3, 1, 4)
  key, value = key.transpose(0, 2, 3, 1), value.transpose(0, 2, 1, 3)
  real = None if lengths is None else jnp.arange(query.shape[3]) < jnp.asarray(lengths)[:, None]
  mask = None if real is None else real[:, None]
  counts = None if lengths is None else jnp.asarray(lengths)
  by_head = lambda *args: cpu.attend_by_head(xla.attend_in_blocks, *args, None, counts, causal)
  at_once = lambda *args: xla.attend_in_blocks(*args, None, causal, dispatch.MOST_LOGITS["cpu"])
  ours, plain = (_program(attend, query, key, value, mask) for attend in (by_head, at_once))
  # The queries after the end of a row are padding, whose results are not read.
  read = lambda out: out if real is None else jnp.where(real[:, None, None, :, None], out, 0)
  return Case("attend_by_head", shapes, ours, plain, "float32", read)


def _rotation(shapes: str, query, key) -> Case:
  """Rotary embedding of [1, T, N, d] queries and [1, T, G, d] keys, cosines and sines included."""
  frequencies = rope.text_frequencies(query.shape[-1], 1e6)
  angles = jnp.arange(query.shape[1])[None, :, None] * jnp.asarray(frequencies.values, jnp.float32)

  def rotate(functions, angles, query, key):
    rotation = functions(angles)
    return jnp.concatenate([rope.rotate(x, *rotation) for x in (query, key)], axis=2)

  program = lambda functions: _program(functools.partial(rotate, functions), angles, query, key)
  return Case(
    "kept",
    shapes,
    program(functools.partial(cpu.kept, (jnp.cos, jnp.sin))),
    program(lambda angles: (jnp.cos(angles), jnp.sin(angles))),
    "float32",
  )


def check(case: Case) -> float:
  """Largest difference of a case's two results, relative to the largest value.

  Raises:
    ValueError: a difference that rounding does not explain.
  """
  found, expected = (np.asarray(case.read(program()), np.float32) for program in (case.ours, case.plain))
  difference = float(np.abs(found - expected).max() / np.abs(expected).max())
  if not difference <= _TOLERANCES[case.dtype]:
    raise ValueError(f"{case.workaround}: results differ by {difference:.1e} for {case.shapes}")
  return difference


def summarize(rows: Sequence[dict[str, Any]]) -> list[str]:
  """The table in models/cpu.py: for each workaround, its smallest and largest gain."""
  cells = []
  for key, (name, replaced) in REPLACED.items():
    gains = [f"{row['gain']:.1f}" for row in sorted(rows, key=lambda row: row["gain"]) if row["workaround"] == key]
    span = gains[0] if gains[0] == gains[-1] else f"{gains[0]} to {gains[-1]}"
    cells.append([f"`{name}`", replaced, f"{span} times"])
  return tables.table(["workaround", "replaces", "gain"], cells, left=3)


def run(settings: Settings) -> list[dict[str, Any]]:
  """Compares, measures, and returns a row per case: seconds with and without the workaround, and the gain."""
  if jax.default_backend() != "cpu":
    raise ValueError(f"platform: got {jax.default_backend()}, the workarounds are for CPUs; set JAX_PLATFORMS=cpu")
  cases = make_cases(settings.tokens, settings.patches)
  differences = [check(case) for case in cases]
  clock = timing.Clock()
  for number, case in enumerate(cases):
    clock.add(f"{number} ours", case.ours)
    clock.add(f"{number} plain", case.plain)
  clock.run(settings.rounds)
  rows = []
  for number, (case, difference) in enumerate(zip(cases, differences)):
    ours, plain = clock.median(f"{number} ours"), clock.median(f"{number} plain")
    rows.append(
      {
        "workaround": case.workaround,
        "shapes": case.shapes,
        "dtype": case.dtype,
        "seconds": ours,
        "plain_seconds": plain,
        "gain": plain / ours,
        "difference": difference,
      }
    )
  print(f"\nMedians of {settings.rounds} rounds; {environment.device()}, {environment.today()}; {environment.versions()}.\n")
  cells = [
    [
      f"`{REPLACED[row['workaround']][0]}`",
      row["shapes"],
      row["dtype"],
      f"{1e3 * row['seconds']:.3f}",
      f"{1e3 * row['plain_seconds']:.3f}",
      f"{row['gain']:.2f}",
      f"{row['difference']:.0e}",
    ]
    for row in rows
  ]
  print(
    "\n".join(
      tables.table(["workaround", "applied to", "dtype", "ms", "without it, ms", "gain", "difference"], cells, left=3)
    )
  )
  print("\n" + "\n".join(summarize(rows)))
  return rows


if __name__ == "__main__":
  command.main(Settings, run)
