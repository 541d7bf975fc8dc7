"""Programs compiled from shapes alone, here for a CPU."""

import dataclasses

from absl.testing import absltest
import jax
import jax.numpy as jnp
import numpy as np

from experiments.tpu import compiler
from experiments.tpu import hlo
from experiments.tpu import report as report_lib
from models import registry
from models import sharding
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import qwen2_5_vl as reference

CHIP = hlo.CHIPS["v5e"]


class Refused:
  """A jitted function whose program is too large for the chip."""

  def lower(self, *args, **static):
    del args, static
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Ran out of memory in memory space hbm. Used 20.00G of 15.75G hbm.")


class CompilerTest(absltest.TestCase):
  def test_batch_has_the_shapes_of_packing(self):
    model = registry.published("qwen2.5-vl-7b")
    batch = compiler.make_batch(model, (112, 112), 2, 64)
    self.assertEqual(batch.vision.patches.shape[1:], (16, 4, 1176))
    self.assertEqual(batch.prompt.visual_counts.tolist(), [16, 16])
    self.assertEqual(batch.prompt.text_counts.tolist(), [64, 64])
    self.assertEqual(batch.vision_flops, model.vision_flops({"image_grid_thw": [[1, 8, 8]] * 2}))

  def test_program_that_does_not_fit(self):
    mesh = sharding.make_mesh("data:1", jax.devices()[:1])
    done = []
    model = Qwen2_5_VL(config_lib.from_hf(reference.CONFIGS["gqa"]), mesh)
    small = compiler.Compiler(model, CHIP, "bfloat16", lambda: done.append(1))
    row, out = small.compile("prefill", Refused(), about={"keep_ratio": 1.0, "tokens": 4160})
    self.assertIsNone(out)
    self.assertEqual(len(done), 1)
    self.assertEqual((row["program"], row["fits"], row["needed_bytes"]), ("prefill", False, 20 * 2**30))
    self.assertEqual(row["weights_bytes"], sum(2 * np.prod(x.shape) for x in jax.tree.leaves(small.params)))
    report = {
      "model_config": "qwen2.5-vl-72b",
      "parameters": 73e9,
      "topology": "v5e:2x4",
      "mesh": {"fsdp": 8},
      "batch": 1,
      "visual_tokens": 4096,
      "text_tokens": 64,
      "max_new_tokens": 1,
      "dtype": "bfloat16",
      "wall_seconds": 1.0,
      "chip": dataclasses.asdict(CHIP),
      "programs": [row],
      "device": "",
      "date": "",
      "versions": "",
    }
    self.assertIn("It does not fit: at most 21.5 of 16 GB per chip.", report_lib.summarize(report))

  def test_other_errors_are_raised(self):
    mesh = sharding.make_mesh("data:1", jax.devices()[:1])
    model = Qwen2_5_VL(config_lib.from_hf(reference.CONFIGS["gqa"]), mesh)
    wrong = jax.jit(lambda params, x, *, model: x @ x, static_argnames="model")
    with self.assertRaises(TypeError):
      compiler.Compiler(model, CHIP, "float32", lambda: None).compile("wrong", wrong, jnp.ones([2, 3]))


if __name__ == "__main__":
  absltest.main()
