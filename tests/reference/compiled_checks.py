"""What compiled programs gather on a mesh of simulated devices; a program of its own, since devices are counted at start.

XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.reference.compiled_checks
"""

from __future__ import annotations

import dataclasses
import re

from flax import traverse_util
import jax
import numpy as np

from hawk_jax.pruning import Pruning
from models import generation
from models import registry
from models import sharding
from models.checkpoints import orbax
from models.checkpoints import params as params_lib
from tests.reference import mesh_checks
from tests.reference import qwen2_5_vl as reference

# Operations that only change how an array is laid out.
_LAYOUT = ("bitcast", "copy", "reshape", "transpose", "convert", "fusion", "get-tuple-element", "slice", "dynamic-slice")


@dataclasses.dataclass
class Instruction:
  """A line of the program, in the order in which they run."""

  name: str
  shape: str
  kind: str
  operands: list[str]
  line: str

  @property
  def elements(self) -> int:
    return sum(
      int(np.prod([int(size) for size in dims.split(",") if size])) for dims in re.findall(r"\w+\[([\d,]*)\]", self.shape)
    )


def read(text: str) -> list[list[Instruction]]:
  """Computations of a compiled program; the entry is the last."""
  computations = []
  for line in text.splitlines():
    if line.endswith("{"):
      computations.append([])
    match = re.match(r"\s+(?:ROOT )?%?([\w.-]+) = (\(.*?\)|\S+) ([\w-]+)\((.*)", line)
    if match:
      arguments = match[4].split("), ")[0]
      computations[-1].append(Instruction(match[1], match[2], match[3], re.findall(r"%([\w.-]+)", arguments), line))
  return computations


def gathered_weights(entry: list[Instruction]) -> tuple[int, int]:
  """How many weights are gathered, and the most elements of gathered weights that live at the same time."""
  by_name = {each.name: each for each in entry}
  order = {each.name: place for place, each in enumerate(entry)}

  def is_weight(name):
    each = by_name[name]
    if each.kind == "parameter":
      return "params[" in each.line
    return each.kind in _LAYOUT and bool(each.operands) and all(map(is_weight, each.operands))

  def last_use(each):
    users = [user for user in entry if each.name in user.operands]
    return max(
      [order[each.name]]
      + [last_use(user) if user.kind in _LAYOUT[:4] + _LAYOUT[6:7] else order[user.name] for user in users]
    )

  gathers = [each for each in entry if each.kind == "all-gather" and all(map(is_weight, each.operands))]
  spans = [(order[each.name], last_use(each), each.elements) for each in gathers]
  live = [sum(size for start, end, size in spans if start <= place <= end) for place in range(len(entry))]
  return len(gathers), max(live, default=0)


def programs(spec: str, config_name: str):
  """Compiled vision, prefill and decoding, and how many elements the parameters of each layer have."""
  model = registry.build("tiny", reference.CONFIGS[config_name], mesh_checks.make_mesh(spec))
  abstract = params_lib.abstract(model)
  with_sharding = lambda value, sharding: jax.ShapeDtypeStruct(value.shape, value.dtype, sharding=sharding)
  params = jax.tree.map(with_sharding, abstract, sharding.param_specs(abstract, model))
  inputs = model.pack(**reference.batch(("text_only", "no_end", "text_only", "no_end")))
  plan = generation.make_plan(model, inputs.prompt, Pruning(keep_ratio=0.4))
  none, static = np.zeros(0, np.int32), dict(model=model, max_new_tokens=4)
  encode = generation.encode.lower(params, inputs.vision, model=model)
  prefill = generation.prefill.lower(params, inputs.prompt, encode.out_info, plan, None, none, **static)
  compiled = {"encode": encode.compile(), "prefill": prefill.compile()}
  state = jax.tree.map(with_sharding, prefill.out_info[0], compiled["prefill"].output_shardings[0])
  compiled["decode"] = generation.decode.lower(params, state, inputs.prompt.next_position, None, none, model=model).compile()
  flat = traverse_util.flatten_dict(abstract)
  layers = {name: sum(flat[path].size for path in paths) for name, paths in orbax.groups(flat).items()}
  return {name: read(program.as_text()) for name, program in compiled.items()}, layers


def main():
  for spec, fsdp in (("tensor:4", False), ("fsdp:4", True)):
    compiled, layers = programs(spec, "gqa")
    for name, computations in compiled.items():
      count, live = gathered_weights(computations[-1])
      moved = max((each.elements for each in sum(computations, []) if each.kind == "all-gather"), default=0)
      layer = max(size for module, size in layers.items() if module.startswith("visual") == (name == "encode"))
      print(
        f"{spec} {name}: {count} weights gathered, at most {live} elements at a time; largest layer {layer}; largest "
        f"gather {moved}",
        flush=True,
      )
      if not fsdp or name == "decode":
        assert count == 0, count
      else:
        assert count > 10 and live <= layer, (count, live)
      # Inside the loop weights have no names, but activations of single tokens are smaller than any kernel.
      assert name != "decode" or moved < 1024, moved


if __name__ == "__main__":
  main()
