"""Static shapes: what may compile, and what must not."""

import json

from absl.testing import absltest
import jax
import numpy as np

from hawk_jax import pruning
from hawk_jax.buckets import bucket
from models import generate
from models.checkpoints import params as params_lib
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import qwen2_5_vl as reference
from tests.reference.compilations import compilations


def make_inputs(model, rng, grid, text_length):
  _, height, width = grid
  tokens = [reference.VISION_START] + [reference.IMAGE] * (height * width // 4) + [reference.VISION_END]
  tokens += rng.integers(0, 100, text_length).tolist()
  return model.pack(
    input_ids=[tokens], pixel_values=rng.standard_normal([height * width, 1176], np.float32), image_grid_thw=[grid]
  )


def shapes(tree):
  return tuple(x.shape for x in jax.tree.leaves(tree))


class CompileCountTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    config = json.loads(json.dumps(reference.CONFIGS["gqa"]))
    config["text_config"]["num_hidden_layers"] = 1
    config["vision_config"]["depth"] = 2
    cls.model = Qwen2_5_VL(config_lib.from_hf(config))
    cls.params = params_lib.init(cls.model)
    cls.rng = np.random.default_rng(0)

  def generate(self, inputs, **arguments):
    arguments = {"head_importance": np.ones(8, np.float32), "keep_ratio": 0.2, "max_new_tokens": 2, **arguments}
    return jax.block_until_ready(generate(self.model, self.params, inputs, **arguments))

  def test_image_sizes_compile_once_a_bucket(self):
    vision, prompts = set(), set()
    batches = []
    for _ in range(30):
      grid = [1, 2 * int(self.rng.integers(2, 8)), 2 * int(self.rng.integers(2, 8))]
      inputs = make_inputs(self.model, self.rng, grid, int(self.rng.integers(3, 20)))
      vision.add(shapes(inputs.vision))
      counts = int((inputs.prompt.visual_order >= 0).sum())
      kept = bucket(-(-counts // 5), pruning.KEEP_MINIMUM)
      prompts.add(shapes(inputs.prompt) + (min(kept, inputs.prompt.visual_order.shape[1]),))
      batches.append(inputs)
    self.generate(batches[0])
    vision.discard(shapes(batches[0].vision))
    with compilations() as seen:
      for inputs in batches:
        self.generate(inputs)
    # Vision for every bucket of patches; prefill and decoding for every bucket of prompt and kept tokens.
    self.assertLessEqual(len(seen), len(vision) + len(prompts))
    self.assertLess(len(vision), 15)  # the pictures have 28 sizes
    with compilations() as seen:
      for inputs in batches:
        self.generate(inputs)
    self.assertEmpty(seen)

  def test_data_compiles_nothing(self):
    inputs = make_inputs(self.model, self.rng, [1, 22, 24], 9)
    self.generate(inputs)
    other = make_inputs(self.model, self.rng, [1, 24, 22], 14)
    with compilations() as seen:
      self.generate(inputs, head_importance=np.arange(8, dtype=np.float32))  # another importance
      self.generate(inputs, keep_ratio=0.21)  # another ratio under the same bucket: 27 and 28 of 132
      self.generate(other)  # another question and picture
    self.assertEmpty(seen)
    with compilations() as seen:
      self.generate(inputs, keep_ratio=0.8)
    self.assertNotEmpty(seen)  # the counter counts


if __name__ == "__main__":
  absltest.main()
