"""One of several processes that load a checkpoint together and answer; prints JSON of tokens and bytes.

python -m tests.reference.process_checks 127.0.0.1:12345 2 0 fsdp:4,tensor:2 CHECKPOINT
"""

from __future__ import annotations

import json
import pathlib
import sys

import jax
import numpy as np

import models
from models import registry
from models import sharding
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import sharded
from tests.reference import checks
from tests.reference import qwen2_5_vl as reference

CASES = ("two_images", "text_only", "square", "no_end")


def answers(model, params) -> list[list[int]]:
  importance = checks.uneven_importance(model.config.text.num_attention_heads)
  out = models.generate(
    model, params, model.pack(**reference.batch(CASES)), head_importance=importance, keep_ratio=0.2, max_new_tokens=6
  )
  return np.asarray(out.tokens).tolist()


def own_share(params) -> int:
  """Bytes of parameters that this process's devices hold, copies counted once."""
  total = 0
  for leaf in jax.tree.leaves(params):
    parts = {str(shard.index): shard.data.nbytes for shard in leaf.addressable_shards}
    total += sum(parts.values())
  return total


def main(coordinator, processes, process, spec, directory):
  jax.distributed.initialize(coordinator, int(processes), int(process))
  directory, tally = pathlib.Path(directory), sharded.Tally()
  model = registry.build(directory, directory_lib.read_config(directory), sharding.make_mesh(spec))
  params = hf.load(directory, model, tally=tally)
  print(
    json.dumps(
      {
        "tokens": answers(model, params),
        "read": tally.bytes_read,
        "share": own_share(params),
        "all": sum(leaf.nbytes for leaf in jax.tree.leaves(params)),
      }
    )
  )


if __name__ == "__main__":
  main(*sys.argv[1:])
