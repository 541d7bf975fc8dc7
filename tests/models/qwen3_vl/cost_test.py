"""The vision tower's work against XLA's own count."""

from absl.testing import absltest
import jax
import numpy as np

from models.qwen3_vl import cost
from models.qwen3_vl import vision

# XLA also counts norms, softmax, activations and rotary embedding: a few operations per element, where the widths below give
# every matrix product hundreds.
TOLERANCE = 0.03


class CostTest(absltest.TestCase):
  def test_against_xla(self):
    """Slices that fill their buckets, since XLA counts padding too."""
    config = vision.VisionConfig(
      depth=2, hidden_size=256, intermediate_size=512, num_heads=2, out_hidden_size=192, deepstack_visual_indexes=(0,)
    )
    grid = [2, 16, 16]
    tower = vision.VisionTower(config)
    inputs = vision.plan(np.zeros((np.prod(grid), config.patch_dim), np.float32), np.asarray([grid]), config)
    self.assertEqual(inputs.patches.shape[:3], (8, 16, 4))
    params = jax.eval_shape(tower.init, jax.random.key(0), inputs)
    found = jax.jit(tower.apply).lower(params, inputs).cost_analysis()["flops"]
    expected = cost.vision_flops(config, [grid])
    self.assertBetween(found, expected, (1 + TOLERANCE) * expected)
    self.assertEqual(2 * cost.vision_flops(config, [[1, 16, 16]]), expected)


if __name__ == "__main__":
  absltest.main()
