"""What is read from compiled programs, and the seconds predicted from it."""

import dataclasses

from absl.testing import absltest

from experiments.tpu import hlo

HLO = "\n".join(
  [
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
  ]
)


class HloTest(absltest.TestCase):
  def test_collectives(self):
    gathered = 1024 * 512 * 2
    found = hlo.collectives(HLO)
    self.assertEqual(
      [(x.kind, x.result, x.group) for x in found],
      [
        ("all-gather", gathered, 4),
        ("all-gather", gathered, 4),
        ("all-reduce", 192 * 4, 8),
        ("all-gather", 32, 4),
        ("reduce-scatter", 64, 8),
        ("collective-permute", 128, 2),
      ],
    )
    self.assertEqual([x.moved for x in found], [gathered * 3 / 4, gathered * 3 / 4, 2 * 768 * 7 / 8, 24, 64 * 7, 128])

  def test_prediction(self):
    chip = hlo.Chip(flops=100.0, bandwidth=10.0, memory=1.0, interconnect=5.0)
    cost = hlo.Cost(
      flops=300.0,
      kernel_flops=100.0,
      bytes_accessed=20.0,
      collectives={"all-gather": (1, 5.0)},
      temporaries=0,
      outputs=0,
      compile_seconds=0.0,
    )
    self.assertEqual(hlo.predict(cost, chip, causal=False).total, 3 + 1)
    self.assertEqual(hlo.predict(cost, chip, causal=True).total, 2.5 + 1)
    self.assertEqual(hlo.predict(dataclasses.replace(cost, bytes_accessed=70.0), chip, causal=True).total, 7 + 1)
    self.assertEqual(hlo.predict(cost, chip, causal=True, least=900.0).total, 9 + 1)
    unread = dataclasses.replace(cost, collectives=None, bytes_accessed=70.0)
    self.assertEqual(hlo.predict(unread, chip, causal=True, least=100.0).total, 7)

  def test_programs_too_large(self):
    error = RuntimeError(
      "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space hbm. Used "
      "20.00G of 15.75G hbm. Exceeded hbm capacity by 4.25G."
    )
    self.assertEqual(hlo.memory_needed(error, 1e9), 20 * 2**30)
    error = RuntimeError(
      "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required "
      "for HLO temporaries (17.50G) exceeds available HBM (15.75G). HLO module: jit_prefill."
    )
    self.assertEqual(hlo.memory_needed(error, 1e9), 1e9 + 17.5 * 2**30)
    self.assertIsNone(hlo.memory_needed(RuntimeError("INTERNAL: other"), 1e9))


if __name__ == "__main__":
  absltest.main()
