"""Broken files beside a checkpoint's weights: each gets one error that names it."""

import json
import pathlib
import shutil
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from models import load_model
from models import load_processor
from models.checkpoints import orbax
from tests.fuzz import files
from tests.reference import qwen2_5_vl as reference


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def refused(self, model, name, content, message):
    for file in files.directory(model).iterdir():
      shutil.copy(file, self.directory / file.name)
    if isinstance(content, dict):
      path = self.directory / name
      content = json.dumps({**(json.loads(path.read_text()) if path.exists() else {}), **content})
    (self.directory / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with self.assertRaisesRegex(ValueError, f"^model: {self.directory}.*{message}"):
      load_processor(self.directory)

  @parameterized.parameters(
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "processor_config.json",
    "generation_config.json",
  )
  def test_no_json(self, name):
    for content, message in (
      ("", "is not JSON"),
      ("[1]", r"must hold a JSON object, got \[1\]"),
      (b"\xff", "is not text"),
      ("[" * 100_000, "is not JSON"),
    ):
      self.refused("qwen2_5_vl", name, content, f"{name} {message}")

  @parameterized.parameters(
    (
      "generation_config.json",
      {"eos_token_id": "2"},
      "generation_config.json: eos_token_id: got '2', must be a whole number",
    ),
    ("generation_config.json", {"eos_token_id": [2, -1]}, "generation_config.json: eos_token_id: got -1"),
    ("preprocessor_config.json", {"patch_size": 7}, "preprocessor_config.json: patch_size is 7, must be 8, as in config"),
    ("preprocessor_config.json", {"merge_size": "2"}, "merge_size"),
    ("preprocessor_config.json", {"image_mean": [0.5]}, "config.json: image_mean: got .0.5., must be three"),
    (
      "preprocessor_config.json",
      {"image_std": [0, 0, 0]},
      "config.json: image_std: got .0, 0, 0., must be three",
    ),
    (
      "preprocessor_config.json",
      {"min_pixels": 9000, "max_pixels": 4000},
      "got 9000 and 4000",
    ),
    ("preprocessor_config.json", {"resample": -1}, "cannot prepare a picture .*resampling filter"),
    ("tokenizer_config.json", {"model_max_length": "many"}, "cannot prepare a picture .*TypeError"),
    ("tokenizer_config.json", {"added_tokens_decoder": {"0": {"content": 5}}}, "has no usable tokenizer"),
    ("tokenizer.json", {"model": {"type": "BPE", "vocab": 3}}, "has no usable tokenizer"),
  )
  def test_values(self, name, content, message):
    self.refused("qwen2_5_vl", name, content, message)

  @parameterized.parameters(
    ("preprocessor_config.json", {"size": {"shortest_edge": 10**6}}, "size.shortest_edge: got 1000000, must be"),
    (
      "preprocessor_config.json",
      {"crop_size": {"height": 0, "width": 9}},
      "crop_size.height: got 0, must be a whole number",
    ),
    (
      "preprocessor_config.json",
      {"crop_size": {"height": 9, "width": 9}},
      "cannot prepare .*pixel_values: got shape",
    ),
    ("preprocessor_config.json", {"image_processor_type": 3}, "image_processor_type is '3', supported are CLIP"),
  )
  def test_values_of_tiles(self, name, content, message):
    self.refused("llava", name, content, message)

  @parameterized.parameters(
    ("internvl", {"size": {"height": 28}}, "preprocessor_config.json"),
    ("internvl", {"size": {"height": 384, "width": 384}}, "size makes tiles of 384 x 384 pixels, the tower takes 28"),
    ("internvl", {"max_patches": 10**6, "min_patches": 10**5}, "so 100000 to 256 tiles .* at most 256, and in this order"),
    ("internvl", {"max_patches": 1.5}, "preprocessor_config.json"),
    ("internvl", {"image_mean": [0.5]}, "config.json: image_mean: got .0.5., must be three"),
    ("llava_onevision", {"image_std": [0, 0, 0]}, "config.json: image_std: got .0, 0, 0., must be three"),
    ("llava_onevision", {"image_grid_pinpoints": 5}, "preprocessor_config.json"),
    ("llava_onevision", {"image_processor_type": 3}, "image_processor_type is '3', supported is Llava"),
    ("qwen3_vl", {"patch_size": 7}, "preprocessor_config.json: patch_size is 7, must be 16, as in config"),
    ("qwen3_vl", {"size": {"shortest_edge": 9, "longest_edge": 4}}, "got 9 and 4"),
  )
  def test_values_of_other_ports(self, model, content, message):
    self.refused(model, "preprocessor_config.json", content, message)

  @parameterized.parameters(
    ({"size": 5}, "video_preprocessor_config.json: got 5, must be an object"),
    ({"size": {"shortest_edge": -1}}, "video_preprocessor_config.json: size.shortest_edge: got -1, must be a whole number"),
    ({"image_std": [0, 0, 0]}, "video_preprocessor_config.json: image_std: got .0, 0, 0., must be three"),
  )
  def test_values_of_videos(self, content, message):
    self.refused("qwen3_vl", "video_preprocessor_config.json", content, message)

  def test_code_that_a_checkpoint_brings_along_is_not_run(self):
    (self.directory / "code.py").write_text(f"open({str(self.directory / 'ran')!r}, 'w')\nclass Tokenizer: pass\n")
    for file in files.directory("llava").iterdir():
      shutil.copy(file, self.directory / file.name)
    path = self.directory / "tokenizer_config.json"
    auto_map = {"auto_map": {"AutoTokenizer": ["code.Tokenizer", None]}}
    path.write_text(json.dumps((json.loads(path.read_text()) if path.exists() else {}) | auto_map))
    try:
      load_processor(self.directory)  # with transformers' own tokenizer, where the file names one
    except ValueError as error:
      self.assertStartsWith(str(error), f"model: {self.directory}")
    self.assertFalse((self.directory / "ran").exists())


class OrbaxTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    reference.write_checkpoint(self.directory, "gqa")

  @parameterized.parameters(
    ("[1]", r"must hold a JSON object, got \[1\]"),
    ("{}", "params: got None, must be an object: parameter to shape and dtype"),
    ('{"params": [1]}', r"params: got \[1\], must be an object"),
    ('{"params": {"a": 3}}', r"params of 'a': got 3, must be \[shape, dtype\]"),
    ('{"params": {"a": [3, "float32"]}}', r"params of 'a': got \[3, 'float32'\], must be \[shape, dtype\]"),
  )
  def test_manifest(self, content, message):
    (self.directory / orbax.MANIFEST).write_text(content)
    with self.assertRaisesRegex(ValueError, f"model: .*/orbax.json is not a manifest .*orbax.json:? {message}"):
      load_model(self.directory)


if __name__ == "__main__":
  absltest.main()
