"""Qwen3-VL against transformers' torch model in float32 (recorded by tests/reference/make_goldens.py)."""

import json
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

import models
from models.qwen3_vl import vision
from tests.reference import checks
from tests.reference import parity
from tests.reference import qwen3_vl as reference


class ParityTest(
  parity.make_test(
    reference, alone=[("gqa", case) for case in ("wide_4x20", "images_and_video", "text_only")], packed=["gqa"]
  )
):
  def test_config_of_any_age_and_tensors_in_shards(self):
    """The hub's keys and old tensor names, in two files, load as those of transformers 5 in one."""
    model, params = checks.load(reference, "gqa")
    with tempfile.TemporaryDirectory() as directory:
      reference.write_checkpoint(directory, "gqa", hub_style=True)
      reference.tiny.split(directory)
      old_model, old = models.load_model(directory)
    self.assertEqual(old_model, model)
    jax.tree.map(np.testing.assert_array_equal, old, params)


class InterpolationTest(parameterized.TestCase):
  @parameterized.parameters((6, 6), (2, 2), (10, 14), (4, 20))
  def test_plain_reading(self, height, width):
    """The corners of the grid are the corners of the table, and between entries it is linear."""
    side = 6
    table = np.random.default_rng(0).standard_normal([side, side])
    places = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), axis=-1)
    entries, weights = vision.interpolation(places, (height, width), side)
    found = (table.reshape(-1)[entries] * weights).sum(-1)
    columns = np.stack([np.interp(np.linspace(0, side - 1, width), np.arange(side), row) for row in table])
    expected = np.stack([np.interp(np.linspace(0, side - 1, height), np.arange(side), row) for row in columns.T], axis=1)
    np.testing.assert_allclose(found, expected, atol=1e-5)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    ("vision_config", dict(deepstack_visual_indexes=[2, 1]), r"deepstack_visual_indexes is \[2, 1\], must be ascending"),
    ("vision_config", dict(deepstack_visual_indexes=[1, 4]), r"deepstack_visual_indexes is \[1, 4\], .* the tower's 4"),
    ("text_config", dict(num_hidden_layers=1), "has 2 levels, the decoder has only 1 layers"),
    ("vision_config", dict(num_position_embeddings=35), "num_position_embeddings is 35, must be a square"),
    ("vision_config", dict(hidden_act="silu"), "vision_config.hidden_act is 'silu'"),
    ("text_config", dict(attention_bias=True), "attention_bias is True"),
    ("text_config", dict(rope_parameters={"rope_type": "default"}), "text_config has no rope_theta"),
    ("text_config", dict(rope_parameters=dict(rope_theta=5e6, mrope_interleaved=False)), "mrope_interleaved is False"),
    ("vision_config", dict(rope_parameters=dict(rope_type="axial", rope_theta=100.0)), "rope_theta is 100.0"),
    (None, dict(model_type="qwen3_5"), "model_type 'qwen3_5': its first layer is linear attention, .* no query-key scores"),
  )
  def test_refused(self, part, changes, message):
    config = json.loads(json.dumps(reference.CONFIGS["gqa"]))
    (config[part] if part else config).update(changes)
    with tempfile.TemporaryDirectory() as directory:
      reference.tiny.write(directory, config, {})
      with self.assertRaisesRegex(ValueError, message):
        models.registry.describe(directory)


if __name__ == "__main__":
  absltest.main()
