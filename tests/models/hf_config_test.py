"""Values of config.json that make no model: refused by name, before anything is built from them."""

import json
import pathlib
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized

from models import load_processor
from models import registry
from models.llava import clip_text
from tests.reference import clip
from tests.reference import internvl
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl

QWEN, LLAVA, NEXT = qwen2_5_vl.CONFIGS["gqa"], llava.CONFIGS["llama"], llava.CONFIGS["next"]
QWEN3, INTERNVL, ONEVISION = qwen3_vl.CONFIGS["gqa"], internvl.CONFIGS["qwen2"], llava_onevision.CONFIGS["untied"]


class ConfigTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def refused(self, content, message):
    path = self.directory / "config.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    for function in (registry.describe, load_processor):
      with self.assertRaisesRegex(ValueError, f"^model: {path}:? {message}"):
        function(str(self.directory))

  @parameterized.parameters(
    (QWEN, "text_config.hidden_size", "64", "config: text_config.hidden_size: got '64', must be a whole number from 1 to"),
    (QWEN, "text_config.vocab_size", None, ".*'vocab_size' expected int, got NoneType"),
    (QWEN, "text_config.rms_norm_eps", "small", ".*'rms_norm_eps' expected float, got str"),
    (QWEN, "text_config.rms_norm_eps", float("nan"), "config: text_config.rms_norm_eps: got nan, must be a positive number"),
    (QWEN, "text_config", [], r"text_config: got \[\], must be an object"),
    (QWEN, "vision_config", "a", "vision_config: got 'a', must be an object"),
    (QWEN, "text_config.num_hidden_layers", 10**6, "config: text_config.num_hidden_layers: got 1000000, must be .* to 256"),
    (
      QWEN,
      "vision_config.depth",
      2**40,
      "config: vision_config.depth: got 1099511627776, must be a whole number from 1 to 256",
    ),
    (QWEN, "text_config.num_key_value_heads", 0, "config: text_config.num_key_value_heads: got 0, must be"),
    (QWEN, "text_config.num_key_value_heads", 3, ".*num_attention_heads is 8, must be a multiple of num_key_value_heads, 3"),
    (QWEN, "text_config.num_attention_heads", 7, ".*hidden_size is 64, must be a multiple of num_attention_heads, 7"),
    (QWEN, "text_config.rope_parameters", {}, ".*mrope_section is .16, 24, 24., must add up to half of head_dim, 4"),
    (QWEN, "vision_config.patch_size", 0, "config: vision_config.patch_size: got 0, must be a whole number from 1 to"),
    (QWEN, "vision_config.patch_size", [14, 14], r".*patch_size: got \(14, 14\), must be a whole number"),
    (QWEN, "vision_config.num_heads", 3, ".*vision_config.hidden_size is 40, must be a multiple of num_heads, 3"),
    (QWEN, "vision_config.window_size", 2, ".*vision_config.window_size is 2, must be at least 28, one visual token"),
    (QWEN, "vision_config.window_size", 2**19, "config: vision_config's window has .* values, must have at most 16,777,216"),
    (QWEN, "vision_config.out_hidden_size", 63, "config: vision_config.out_hidden_size is 63, supported is 64"),
    (QWEN, "vision_config.fullatt_block_indexes", [-1], ".*fullatt_block_indexes: got -1, must be a whole number"),
    (QWEN, "image_token_id", "5", ".*'image_token_id' expected int, got str"),
    (QWEN, "image_token_id", -5, "config: image_token_id: got -5, must be a whole number"),
    (QWEN, "video_token_id", QWEN["image_token_id"], "config: image_token_id and video_token_id are both 154, must differ"),
    (LLAVA, "vision_config.patch_size", 0, "config: vision_config.patch_size: got 0"),
    (LLAVA, "vision_config.patch_size", 50, "config: vision_config.patch_size is 50, must be at most image_size, 42"),
    (LLAVA, "vision_config.image_size", 2**19, "config: vision_config's tile has .* values, must have at most 16,777,216"),
    (LLAVA, "vision_config.num_attention_heads", 3, r".*hidden size \(40\) is not a multiple of .* \(3\)"),
    (LLAVA, "vision_feature_layer", [True], ".*vision_feature_layer"),
    (LLAVA, "image_token_index", None, ".*image_token_index"),
    (LLAVA, "model_type", ["llava"], r"has model_type \['llava'\], supported are internvl, llava"),
    (QWEN, "text_config.rope_parameters.mrope_section", [4], r".*mrope_section is \[4\], must be three numbers"),
    (QWEN3, "text_config.num_hidden_layers", 10**6, "config: text_config.num_hidden_layers: got 1000000, must be .* to 256"),
    (
      QWEN3,
      "text_config.num_key_value_heads",
      3,
      ".*num_attention_heads is 8, must be a multiple of num_key_value_heads, 3",
    ),
    (QWEN3, "text_config.rope_parameters.mrope_section", [8], r".*mrope_section is \[8\], must be three numbers"),
    (QWEN3, "vision_config.patch_size", 0, "config: vision_config.patch_size: got 0, must be a whole number from 1 to"),
    (QWEN3, "vision_config.num_heads", 3, ".*vision_config.hidden_size is 40, must be a multiple of num_heads, 3"),
    (QWEN3, "vision_config.out_hidden_size", 63, "config: vision_config.out_hidden_size is 63, supported is 64"),
    (QWEN3, "vision_config.num_position_embeddings", -4, "config: vision_config.num_position_embeddings: got -4, must be"),
    (QWEN3, "vision_config.num_position_embeddings", 2**20, "config: vision_config's table of positions has 41,943,040"),
    (QWEN3, "vision_config.deepstack_visual_indexes", [1.5], r".*deepstack_visual_indexes.* \[1.5\]"),
    (QWEN3, "video_token_id", QWEN3["image_token_id"], "config: image_token_id and video_token_id are both .*, must differ"),
    (INTERNVL, "text_config.hidden_size", "64", "config: text_config.hidden_size: got '64', must be a whole number from 1"),
    (INTERNVL, "text_config.rms_norm_eps", -1.0, "config: text_config.rms_norm_eps: got -1.0, must be a positive number"),
    (INTERNVL, "vision_config.num_attention_heads", 3, ".*vision_config.hidden_size is 40, must be a multiple of .*, 3"),
    (INTERNVL, "vision_config.patch_size", [0, 0], "config: vision_config.patch_size: got 0, must be a whole number"),
    (INTERNVL, "vision_config.image_size", [28, 56], r".*vision_config.image_size is .28, 56., must be square"),
    (INTERNVL, "vision_config.image_size", [14 * 2**15] * 2, ".*vision_config's tile has .* values, must have at most"),
    (INTERNVL, "vision_feature_layer", True, ".*vision_feature_layer"),
    (INTERNVL, "image_token_id", 1, "config: image_token_id: got 1, must be a whole number from 2"),
    (INTERNVL, "text_config.eos_token_id", [-1], "config: eos_token_id: got -1, must be a whole number"),
    (ONEVISION, "text_config.num_hidden_layers", 10**6, "config: text_config.num_hidden_layers: got 1000000, must be"),
    (ONEVISION, "vision_config.num_attention_heads", 3, ".*vision_config.hidden_size is 40, must be a multiple of .*, 3"),
    (ONEVISION, "vision_config.patch_size", 38, "config: vision_config.patch_size is 38, must be at most image_size, 37"),
    (
      ONEVISION,
      "vision_aspect_ratio",
      "anyres_max_" + "9" * 5000,
      ".*vision_aspect_ratio is .*, must be like 'anyres_max_9'",
    ),
    (
      ONEVISION,
      "image_grid_pinpoints",
      [[37 * 1000, 37]],
      ".*image_grid_pinpoints are .*, in pairs .* of at most 100 tiles",
    ),
    (ONEVISION, "video_token_index", ONEVISION["image_token_index"], ".*image_token_index and video_token_index are both"),
    (NEXT, "image_grid_pinpoints", [[42, "84"]], ".*image_grid_pinpoints"),
    (NEXT, "image_grid_pinpoints", [[42 * 1000, 42]], ".*image_grid_pinpoints are .*, in pairs .* of at most 100 tiles"),
  )
  def test_values(self, config, key, value, message):
    content = json.loads(json.dumps(config))
    *parts, name = key.split(".")
    place = content
    for part in parts:
      place = place[part]
    place[name] = value
    began = time.monotonic()
    self.refused(content, message)
    self.assertLess(time.monotonic() - began, 10)

  @parameterized.parameters(
    ("[1]", r"must hold a JSON object, got \[1\]"),
    ("", "is not JSON"),
    ("[" * 100_000, "is not JSON .*recursion"),
    ('{"a": 1' + "0" * 5000 + "}", "is not JSON"),
  )
  def test_files(self, content, message):
    self.refused(content, message)

  def test_bytes(self):
    (self.directory / "config.json").write_bytes(b"\xff\xfe")
    with self.assertRaisesRegex(ValueError, "config.json is not text"):
      registry.describe(self.directory)

  def test_clip(self):
    content = json.loads(json.dumps(clip.CONFIGS["named"]))
    content["text_config"]["num_attention_heads"] = 0
    (self.directory / "config.json").write_text(json.dumps(content))
    with self.assertRaisesRegex(ValueError, "^clip: .*text_config.num_attention_heads: got 0, must be a whole number"):
      clip_text.load(self.directory)


class ArgumentsTest(parameterized.TestCase):
  @parameterized.parameters(
    (None, "model: got None, must be a checkpoint's directory or a hub id"),
    (3, "model: got 3, must be"),
    ("a" * 300, "model: there is no directory 'aaa.*, and it is not a hub id"),
    ("a\0b", "model: there is no directory"),
    ("x/" + "y" * 200, "model: there is no directory"),
  )
  def test_model(self, model, message):
    for function in (registry.describe, load_processor):
      with self.assertRaisesRegex(ValueError, message):
        function(model)

  def test_mesh(self):
    with self.assertRaisesRegex(ValueError, "mesh: got 'data:1', must be a mesh, such as models.sharding.make_mesh makes"):
      registry.build(pathlib.Path("tiny"), QWEN, "data:1")

  @parameterized.parameters(None, 3, [[]])
  def test_published(self, name):
    with self.assertRaisesRegex(ValueError, "model_config: got .*, allowed are internvl3-14b"):
      registry.published(name)


if __name__ == "__main__":
  absltest.main()
