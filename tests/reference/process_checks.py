"""One of several processes that load checkpoints together and answer; prints JSON of tokens and bytes for each.

python -m tests.reference.process_checks 127.0.0.1:12345 2 0 fsdp:4,tensor:2 qwen2_5_vl=CHECKPOINT ...
"""

from __future__ import annotations

import json
import pathlib
import sys
from typing import Any

import jax
import numpy as np

import models
from models import registry
from models import sharding
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import sharded
from tests.reference import checks
from tests.reference import mesh_checks
from tests.reference import ports


def answers(family, model, params) -> list[list[int]]:
  """Tokens of four prompts."""
  arrays = ports.REFERENCES[family].batch(mesh_checks.PROMPTS[family][:4])
  importance = checks.uneven_importance(model.config.text.num_attention_heads)
  out = models.generate(
    model, params, model.pack(**arrays), head_importance=importance, keep_ratio=0.2, max_new_tokens=6, eos_token_ids=()
  )
  return np.asarray(out.tokens).tolist()


def own_share(params) -> int:
  """Bytes of parameters that this process's devices hold, copies counted once."""
  total = 0
  for leaf in jax.tree.leaves(params):
    parts = {str(shard.index): shard.data.nbytes for shard in leaf.addressable_shards}
    total += sum(parts.values())
  return total


def check(family, directory, mesh) -> dict[str, Any]:
  """What a family's checkpoint answers, and the bytes of its parameters."""
  tally = sharded.Tally()
  model = registry.build(directory, directory_lib.read_config(directory), mesh)
  params = hf.load(directory, model, tally=tally)
  return {
    "tokens": answers(family, model, params),
    "read": tally.bytes_read,
    "share": own_share(params),
    "all": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
  }


def main(coordinator, processes, process, spec, *checkpoints):
  jax.distributed.initialize(coordinator, int(processes), int(process))
  mesh = sharding.make_mesh(spec)
  pairs = [checkpoint.split("=", 1) for checkpoint in checkpoints]
  print(json.dumps({family: check(family, pathlib.Path(directory), mesh) for family, directory in pairs}))


if __name__ == "__main__":
  main(*sys.argv[1:])
