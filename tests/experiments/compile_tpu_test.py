"""Planning for TPUs: what is read from compiled programs, what bad input gives, and one program compiled for a slice."""

import dataclasses
import importlib.util
import subprocess
import sys
import tempfile
import unittest
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp

from experiments import compile_report
from experiments import programs
from experiments import slices
from models import kernels
from models import registry
from models import sharding

HLO = "\n".join([
    "  %all-gather.1 = bf16[1024,512]{1,0:T(8,128)(2,1)} all-gather(bf16[256,512]{1,0} %p), replica_groups=[2,4]<=[8]",
    "  %ags = (bf16[256,512]{1,0:T(8,128)(2,1)S(1)}, bf16[1024,512]{1,0}) all-gather-start(bf16[256,512]{1,0} %p), "
    "replica_groups={{0,1,2,3},{4,5,6,7}}",
    "  %agd = bf16[1024,512]{1,0} all-gather-done((bf16[256,512]{1,0}, bf16[1024,512]{1,0}) %ags)",
    "  ROOT %ar = (f32[128]{0}, f32[64]{0}) all-reduce(f32[128]{0} %a, f32[64]{0} %b), replica_groups=[1,8]<=[8]",
    "  %m = s32[8]{0} all-gather(%g), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}",
    "  %n = s32[8]{0} all-gather(%g), channel_id=7, replica_groups=mesh['axis_0'=4,'axis_1'=2] {'axis_0'}, dimensions={0}",
    "  %rs = f32[16]{0} reduce-scatter(f32[128]{0} %a), replica_groups=[1,8]<=[8], dimensions={0}",
    "  %cps = (f32[32]{0}, f32[32]{0}, u32[], u32[]) collective-permute-start(f32[32]{0} %a), source_target_pairs={{0,1}}",
    '  %dot = f32[32,32]{1,0} dot(f32[32,32]{1,0} %a, f32[32,32]{1,0} %b), metadata={op_name="all-gather(x)"}',
])
HAS_LIBTPU = importlib.util.find_spec("libtpu") is not None


class CompileTpuTest(parameterized.TestCase):

  def test_collectives(self):
    gathered = 1024 * 512 * 2
    found = programs.collectives(HLO)
    self.assertEqual([(x.kind, x.result, x.group) for x in found], [
        ("all-gather", gathered, 4), ("all-gather", gathered, 4), ("all-reduce", 192 * 4, 8), ("all-gather", 32, 4),
        ("reduce-scatter", 64, 8), ("collective-permute", 128, 2)])
    self.assertEqual([x.moved for x in found], [gathered * 3 / 4, gathered * 3 / 4, 2 * 768 * 7 / 8, 24, 64 * 7, 128])

  def test_prediction(self):
    chip = programs.Chip(flops=100.0, bandwidth=10.0, memory=1.0, interconnect=5.0)
    cost = programs.Cost(flops=300.0, kernel_flops=100.0, bytes_accessed=20.0, collectives={"all-gather": (1, 5.0)},
                         temporaries=0, outputs=0, compile_seconds=0.0)
    self.assertEqual(programs.predict(cost, chip, causal=False).total, 3 + 1)
    self.assertEqual(programs.predict(cost, chip, causal=True).total, 2.5 + 1)
    self.assertEqual(programs.predict(dataclasses.replace(cost, bytes_accessed=70.0), chip, causal=True).total, 7 + 1)
    self.assertEqual(programs.predict(cost, chip, causal=True, least=900.0).total, 9 + 1)
    unread = dataclasses.replace(cost, collectives=None, bytes_accessed=70.0)
    self.assertEqual(programs.predict(unread, chip, causal=True, least=100.0).total, 7)

  def test_programs_too_large(self):
    error = RuntimeError("RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used "
                         "20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G.")
    self.assertEqual(programs.memory_needed(error, 1e9), 20 * 2**30)
    error = RuntimeError("RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required "
                         "for HLO temporaries (17.50G) exceeds available HBM (15.75G). HLO module: jit_prefill.")
    self.assertEqual(programs.memory_needed(error, 1e9), 1e9 + 17.5 * 2**30)
    self.assertIsNone(programs.memory_needed(RuntimeError("INTERNAL: other"), 1e9))

  def test_report_says_what_does_not_fit(self):
    row = {"program": "prefill", "keep_ratio": 1.0, "tokens": 4160, "weights_bytes": 18e9, "needed_bytes": 20e9,
           "fits": False, "compile_seconds": 3.0}
    report = {"model_config": "qwen2.5-vl-72b", "parameters": 73e9, "topology": "v5e:2x4", "mesh": {"fsdp": 8}, "batch": 1,
              "visual_tokens": 4096, "text_tokens": 64, "max_new_tokens": 1, "dtype": "bfloat16", "wall_seconds": 1.0,
              "chip": dataclasses.asdict(programs.CHIPS["v5e"]), "programs": [row], "device": "", "date": "", "versions": ""}
    self.assertIn("It does not fit: at most 20.0 of 16 GB a chip.", compile_report.summarize(report))

  def test_bad_topology(self):
    with self.assertRaisesRegex(ValueError, "topology: got 'v9:2x4', must be like v5e:2x4 with one of v5e, v5p, v6e"):
      slices.slice_devices("v9:2x4")

  def test_bad_keep_ratio(self):
    # In a process of its own: absl's flags are one set, so a test process imports one app at most.
    with tempfile.TemporaryDirectory() as directory:
      command = [sys.executable, "-m", "experiments.compile_tpu", "--keep_ratio=0.5", "--keep_ratio=0",
                 f"--output_dir={directory}"]
      done = subprocess.run(command, capture_output=True, text=True, check=False)
    self.assertEqual(done.returncode, 2)
    self.assertIn("error: keep_ratio: got [0.5, 0.0], each must be in (0, 1]", done.stderr)

  def test_no_libtpu(self):
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
      with self.assertRaisesRegex(ValueError, "libtpu, install requirements-tpu.txt"):
        slices.slice_devices("v5e:2x4")

  def test_pictures(self):
    qwen, llava = (registry.published(name).config for name in ("qwen2.5-vl-7b", "llava-1.5-7b"))
    self.assertEqual(slices.picture_size(qwen, None), (1792, 1792))
    self.assertEqual(slices.picture_size(qwen, 512), (28 * 16, 28 * 32))
    self.assertEqual(slices.picture_size(llava, 576), (336, 336))
    with self.assertRaisesRegex(ValueError, "visual_tokens: got 4099, .* such as 4096"):
      slices.picture_size(qwen, 4099)
    with self.assertRaisesRegex(ValueError, "visual_tokens: got 4096, every picture of this model has 576"):
      slices.picture_size(llava, 4096)

  def test_plan_has_the_shapes_of_packing(self):
    model = registry.published("qwen2.5-vl-7b")
    prompt, vision, _ = slices.plan(model, (112, 112), 2, 64)
    self.assertEqual(vision.patches.shape[1:], (16, 4, 1176))
    self.assertEqual(prompt.visual_counts.tolist(), [16, 16])
    self.assertEqual(prompt.text_counts.tolist(), [64, 64])

  @unittest.skipUnless(HAS_LIBTPU, "needs libtpu, of requirements-tpu.txt")
  def test_kernel_compiles_for_a_slice(self):
    slices.no_tpu()
    chip, devices = slices.slice_devices("v5e:2x4")
    mesh = sharding.make_mesh("fsdp:2,tensor:4", devices)
    put = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.bfloat16, sharding=sharding.sharding(
        mesh, shape, sharding.BATCH, None, "tensor"))

    def attend(query, key, value):
      self.assertEqual(kernels.choose(mesh.devices.flat[0], query, key), "pallas")
      return kernels.attend("pallas", query, key, value, None, causal=True, mesh=mesh, rows=sharding.BATCH, heads="tensor")

    compiled = jax.jit(attend).lower(put(2, 1100, 8, 80), put(2, 1100, 4, 80), put(2, 1100, 4, 80)).compile()
    cost = programs.read(compiled, 0.0)
    # Per chip one row, two heads and 1,152 padded queries and keys; softmax comes on top of the products.
    products = 4 * 2 * 1152**2 * 80
    self.assertBetween(cost.kernel_flops, products, 1.1 * products)
    self.assertEqual(cost.collectives, {})
    self.assertLess(cost.temporaries, 16e6)
    self.assertGreater(programs.predict(cost, chip, causal=True).total, 0)
    with self.assertRaisesRegex(ValueError, "topology: 'v5e:3x5' is no slice"):
      slices.slice_devices("v5e:3x5")


if __name__ == "__main__":
  absltest.main()
