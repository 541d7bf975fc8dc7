"""The vision tower's work, against XLA's own count and against numbers computed by hand."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from models.qwen2_5_vl import cost
from models.qwen2_5_vl import vision

# XLA also counts norms, softmax, activations and rotary embedding: a few operations per element, where the widths below give
# every matrix product hundreds.
TOLERANCE = 0.02


class CostTest(parameterized.TestCase):
  @parameterized.parameters((1, 16, 16), (2, 16, 16))
  def test_against_xla(self, *grid):
    """Grids of whole windows that fill their buckets, since XLA counts padding too."""
    config = vision.VisionConfig(
      depth=3, hidden_size=256, intermediate_size=512, num_heads=2, out_hidden_size=192, fullatt_block_indexes=(1,)
    )
    tower = vision.VisionTower(config)
    inputs, _ = vision.plan(np.zeros((np.prod(grid), config.patch_dim), np.float32), np.asarray([grid]), config)
    self.assertEqual(inputs.patches.shape[:3], (4 * grid[0], 16, 4))
    self.assertEqual(inputs.slice_slots.shape, (grid[0], 64))
    params = jax.eval_shape(tower.init, jax.random.key(0), inputs)
    found = jax.jit(tower.apply).lower(params, inputs).cost_analysis()["flops"]
    expected = cost.vision_flops(config, [grid])
    self.assertBetween(found, expected, (1 + TOLERANCE) * expected)

  def test_ragged_windows_by_hand(self):
    config = vision.VisionConfig(
      depth=2,
      hidden_size=8,
      intermediate_size=16,
      num_heads=2,
      out_hidden_size=12,
      fullatt_block_indexes=(1,),
      in_channels=1,
      temporal_patch_size=1,
      patch_size=2,
      window_size=8,
    )
    # 24 patches of 4 pixels, in windows of 4 x 4 and 4 x 2 patches.
    embedding = 2 * 24 * 4 * 8
    products = 2 * 24 * (4 * 8 * 8 + 3 * 8 * 16)  # of each block: four of attention, three of the MLP
    windows = 4 * (16**2 + 8**2) * 8  # logits and weighted values, each a multiply-add
    whole = 4 * 24**2 * 8
    merger = 2 * 6 * (32 * 32 + 32 * 12)  # of 6 groups of 4 patches
    self.assertEqual(cost.vision_flops(config, [[1, 4, 6]]), embedding + 2 * products + windows + whole + merger)
    # Two slices of a video do not see each other; two pictures take twice as much.
    self.assertEqual(cost.vision_flops(config, [[2, 4, 6]]), cost.vision_flops(config, [[1, 4, 6], [1, 4, 6]]))


if __name__ == "__main__":
  absltest.main()
