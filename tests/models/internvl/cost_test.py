"""The vision tower's and projector's work, against XLA's own count and against numbers computed by hand."""

from absl.testing import absltest

from models.internvl import cost
from models.internvl.config import InternVLConfig
from models.internvl.model import InternVL
from models.internvl.vision import VisionConfig
from tests.reference.cost import counted_by_xla
from tests.reference.cost import small_decoder

# XLA counts more than matrix products, but the widths below give these hundreds of operations per element.
TOLERANCE = 0.04


def make_config(size, mlp, hidden, **vision) -> InternVLConfig:
  vision = VisionConfig(hidden_size=size, intermediate_size=mlp, num_attention_heads=1, **vision)
  return InternVLConfig(text=small_decoder(hidden), image_token_id=7, vision=vision)


class CostTest(absltest.TestCase):
  def test_against_xla(self):
    config = make_config(256, 512, 192, num_hidden_layers=2, image_size=112)
    expected = cost.vision_flops(config, 2)
    self.assertBetween(counted_by_xla(InternVL(config), 2), expected, (1 + TOLERANCE) * expected)

  def test_by_hand(self):
    config = make_config(4, 6, 5, num_hidden_layers=3, image_size=8, patch_size=2, num_channels=1, feature_layer=-2)
    # 16 patches of 4 pixels and the class token, through two of the three layers; the projector gets 4 times 4 patches.
    embedding = 2 * 16 * 4 * 4
    layer = 2 * 17 * (4 * 4 * 4 + 2 * 4 * 6) + 4 * 17**2 * 4
    projector = 2 * 4 * (16 * 5 + 5 * 5)
    self.assertEqual(cost.vision_flops(config, 1), embedding + 2 * layer + projector)
    self.assertEqual(cost.vision_flops(config, 7), 7 * cost.vision_flops(config, 1))


if __name__ == "__main__":
  absltest.main()
