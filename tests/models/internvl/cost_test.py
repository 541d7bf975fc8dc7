"""The vision tower's and projector's work, against XLA's own count and against numbers computed by hand."""

from absl.testing import absltest
import jax
import numpy as np

from models.checkpoints import params as params_lib
from models.decoder import DecoderConfig
from models.internvl import cost
from models.internvl.config import InternVLConfig
from models.internvl.model import InternVL
from models.internvl.vision import VisionConfig

# XLA also counts norms, softmax and activations: a few operations per element, where the widths below give every matrix
# product hundreds.
TOLERANCE = 0.04


def make_config(size, mlp, hidden, **vision) -> InternVLConfig:
  text = DecoderConfig(
    vocab_size=8,
    hidden_size=hidden,
    intermediate_size=8,
    num_hidden_layers=1,
    num_attention_heads=1,
    num_key_value_heads=1,
    head_dim=8,
    max_position_embeddings=128,
  )
  vision = VisionConfig(hidden_size=size, intermediate_size=mlp, num_attention_heads=1, **vision)
  return InternVLConfig(text=text, image_token_id=7, vision=vision)


class CostTest(absltest.TestCase):
  def test_against_xla(self):
    config = make_config(256, 512, 192, num_hidden_layers=2, image_size=112)
    model = InternVL(config)
    tiles = np.zeros((2, *config.vision.tile_shape), np.float32)
    encode = jax.jit(lambda params, tiles: model.apply({"params": params}, tiles, method="encode"))
    found = encode.lower(params_lib.abstract(model), tiles).cost_analysis()["flops"]
    expected = cost.vision_flops(config, 2)
    self.assertBetween(found, expected, (1 + TOLERANCE) * expected)

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
