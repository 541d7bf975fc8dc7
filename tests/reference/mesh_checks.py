"""Generation on meshes of simulated devices against one device; a program of its own, since devices are counted at start.

  XLA_FLAGS=--xla_force_host_platform_device_count=8 python -m tests.reference.mesh_checks qwen2_5_vl/gqa/8 fsdp:8 tensor:4 \
      llava/mistral/3 fsdp:2,tensor:4

Each checkpoint, with a number of prompts, is followed by the meshes to try it on; after one with
/stages, tokens are removed in tower and decoder too. A mesh smaller than the devices takes the first of them.
"""

from __future__ import annotations

import importlib
import math
import re
import sys
import tempfile

import jax
import numpy as np

import models
from models import sharding
from tests.reference import checks

PROMPTS = {
  "internvl": ("two_pictures", "text_only", "one_tile", "tiled", "video", "picture_and_video", "adjacent", "no_instruction"),
  "qwen2_5_vl": ("two_images", "text_only", "video", "ragged_6x50", "image_and_video", "square", "no_end", "no_instruction"),
  "qwen3_vl": ("two_images", "text_only", "images_and_video", "no_end"),
  "qwen3_vl_moe": ("two_images", "text_only", "images_and_video", "no_end"),
  "llava_onevision": ("several", "text_only", "video", "scaled_down", "image_and_video", "square", "two_videos", "wide"),
  "llava": ("two", "text_only", "one", "adjacent", "no_instruction", "one", "two", "text_only"),
}
NEW_TOKENS = 8
STAGES = "tower:0.5, input:0.3, decoder:0.1"
TOLERANCE = 1e-4


def make_mesh(spec):
  return sharding.make_mesh(spec, jax.devices()[: math.prod(map(int, re.findall(r"\d+", spec)))])


def answers(model, params, arrays, settings):
  """For all settings: tokens, kept positions, and logits."""
  importance = checks.uneven_importance(model.config.text.num_attention_heads)
  outs = [
    models.generate(
      model, params, model.pack(**arrays), head_importance=importance, max_new_tokens=NEW_TOKENS, return_logits=True, **keep
    )
    for keep in settings
  ]
  return [tuple(np.asarray(x) for x in (out.tokens, out.kept_positions, out.logits)) for out in outs]


def check(name, specs):
  family, config_name, rows, *staged = name.split("/")
  settings = [{"stages": STAGES}] if staged else [{}, {"keep_ratio": 0.2}]
  reference = importlib.import_module(f"tests.reference.{family}")
  arrays = reference.batch(PROMPTS[family][: int(rows)])
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name)
    expected = answers(*models.load_model(directory), arrays, settings)
    for spec in specs:
      model, params = models.load_model(directory, mesh=make_mesh(spec))
      worst = 0.0
      for actual, wanted in zip(answers(model, params, arrays, settings), expected):
        np.testing.assert_array_equal(actual[0], wanted[0], err_msg=f"{name} on {spec}: tokens")
        np.testing.assert_array_equal(actual[1], wanted[1], err_msg=f"{name} on {spec}: kept positions")
        worst = max(worst, float(np.abs(actual[2] - wanted[2]).max()))
      print(f"{name} on {spec}: tokens equal, largest difference of logits {worst:.1e}", flush=True)
      assert worst <= TOLERANCE, worst


def main(*arguments):
  starts = [number for number, argument in enumerate(arguments) if "/" in argument]
  for start, end in zip(starts, [*starts[1:], None]):
    check(arguments[start], arguments[start + 1 : end])


if __name__ == "__main__":
  main(*sys.argv[1:])
