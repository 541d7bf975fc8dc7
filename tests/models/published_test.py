"""The published sizes: their configs as the hub has them, and how many parameters they come to."""

import dataclasses
import json
import re

from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util

from models import registry
from models.checkpoints import names
from models.checkpoints import params as params_lib
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import published
from tests.reference import tiny

GOLDENS = json.loads(published.GOLDENS.read_text())


class PublishedTest(parameterized.TestCase):
  @parameterized.parameters(*published.CONFIGS)
  def test_tensors_of_transformers(self, name):
    """Names and shapes of all tensors equal those of transformers' model (recorded on its meta device)."""
    model = registry.build(name, published.CONFIGS[name])
    config = model.config
    self.assertEqual(config, registry.published(name).config)
    depth = "depth" if hasattr(config.vision, "depth") else "num_hidden_layers"
    one = {depth: 1, "deepstack_visual_indexes": (0,), "feature_layers": (1,)}
    one = {name: value for name, value in one.items() if hasattr(config.vision, name)}
    small = dataclasses.replace(
      config,
      text=dataclasses.replace(config.text, num_hidden_layers=1),
      vision=dataclasses.replace(config.vision, **one),
    )
    # All layers have the same shape, so one of each is enough.
    towers, decoder = getattr(config.vision, depth), config.text.num_hidden_layers
    repeated = {"blocks_0": towers, "layer_0": towers, "deepstack_merger_list_0": 3}
    shapes, parameters = {}, 0
    for path, value in traverse_util.flatten_dict(params_lib.abstract(type(model)(small))).items():
      layers = repeated | {"layers_0": decoder if path[0] == "language_model" else towers}
      count = next((layers[part] for part in path if part in layers), None)
      parameters += (count or 1) * value.size
      dotted = names.dotted(path)
      shape = model.stored_shapes().get(dotted, names.torch_shape(path, value.shape))
      if ".experts." in dotted:
        shape = (shape[0], *shape[:0:-1])  # transformers' module has them as [out, in]
      # transformers' own names.
      stored = re.sub(r"linear\.(\d)", r"linear_\1", dotted if dotted.startswith("lm_head") else f"model.{dotted}")
      for number in range(count or 1):
        shapes[stored if count is None else stored.replace(".0.", f".{number}.")] = shape
    self.assertEqual({"parameters": parameters, "tensors": tiny.digest(shapes)}, GOLDENS[name])

  @parameterized.parameters(
    ("qwen2.5-vl-3b", 3_754_622_976),
    ("qwen2.5-vl-7b", 8_292_166_656),
    ("qwen2.5-vl-32b", 33_452_718_336),
    ("qwen2.5-vl-72b", 73_410_777_344),
  )
  def test_parameters(self, name, expected):
    config = config_lib.PUBLISHED[name]
    small = dataclasses.replace(
      config, text=dataclasses.replace(config.text, num_hidden_layers=1), vision=dataclasses.replace(config.vision, depth=1)
    )
    # All layers have the same shape, so one of each is enough.
    found = 0
    for path, value in traverse_util.flatten_dict(params_lib.abstract(Qwen2_5_VL(small)), sep="/").items():
      layers = config.text.num_hidden_layers if "layers_0/" in path else config.vision.depth if "blocks_0/" in path else 1
      found += layers * value.size
    self.assertEqual(found, expected)

  def test_config_of_the_hub(self):
    content = dict(
      model_type="qwen2_5_vl",
      hidden_size=3584,
      intermediate_size=18944,
      num_hidden_layers=28,
      num_attention_heads=28,
      num_key_value_heads=4,
      vocab_size=152064,
      max_position_embeddings=128000,
      max_window_layers=28,
      hidden_act="silu",
      rms_norm_eps=1e-6,
      rope_theta=1e6,
      sliding_window=32768,
      use_sliding_window=False,
      tie_word_embeddings=False,
      rope_scaling={"type": "mrope", "mrope_section": [16, 24, 24]},
      eos_token_id=151645,
      image_token_id=151655,
      video_token_id=151656,
      vision_start_token_id=151652,
      vision_end_token_id=151653,
      vision_config=dict(
        depth=32,
        hidden_act="silu",
        hidden_size=1280,
        intermediate_size=3420,
        num_heads=16,
        in_chans=3,
        out_hidden_size=3584,
        patch_size=14,
        spatial_merge_size=2,
        spatial_patch_size=14,
        window_size=112,
        fullatt_block_indexes=[7, 15, 23, 31],
        tokens_per_second=2,
        temporal_patch_size=2,
      ),
    )
    self.assertEqual(config_lib.from_hf(content), config_lib.PUBLISHED["qwen2.5-vl-7b"])

  def test_by_name(self):
    self.assertEqual(registry.published("llava-1.5-7b").config.text.num_hidden_layers, 32)
    with self.assertRaisesRegex(ValueError, "model_config: got 'qwen3', allowed are .*llava-1.5-13b"):
      registry.published("qwen3")


if __name__ == "__main__":
  absltest.main()
