"""Bad arguments get one clear error that names them, before anything runs on the device."""

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from models import generate
from models.checkpoints import params as params_lib
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import qwen2_5_vl as reference


class BadInputTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model = Qwen2_5_VL(config_lib.from_hf(reference.CONFIGS["gqa"]))
    cls.params = params_lib.init(cls.model)
    cls.inputs = cls.model.pack(**reference.case("square"))

  @parameterized.named_parameters(
    ("importance_length", dict(head_importance=np.ones(7)), "head_importance: got 7 weights, .* has 8 heads"),
    ("importance_negative", dict(head_importance=[1, 1, 1, 1, -1, 1, 1, 1]), "head_importance: must not be negative"),
    ("importance_zero", dict(head_importance=np.zeros(8)), "head_importance: all weights are zero"),
    ("importance_nan", dict(head_importance=[np.nan] * 8), "head_importance: .* not finite"),
    ("importance_rows", dict(head_importance=np.ones([3, 8])), "weights for 3 prompts, the batch has 1"),
    ("ratio_zero", dict(keep_ratio=0.0), r"keep_ratio: got 0.0, must be in \(0, 1\]"),
    ("ratio_above", dict(keep_ratio=1.5), "keep_ratio: got 1.5"),
    ("ratio_nan", dict(keep_ratio=float("nan")), "keep_ratio: got nan"),
    ("count_zero", dict(keep_count=0), "keep_count: got 0, must be a whole number of at least 1"),
    ("count_fraction", dict(keep_count=2.5), "keep_count: got 2.5"),
    ("both", dict(keep_ratio=0.5, keep_count=3), "keep_ratio and keep_count: give one of them"),
    ("normalization", dict(keep_ratio=0.5, normalization="l1"), "normalization: got 'l1', allowed are l2, softmax"),
    ("selector", dict(keep_ratio=0.5, selector="best"), "selector: got 'best', allowed are hawk"),
    ("rounding", dict(keep_ratio=0.5, rounding="half"), "rounding: got 'half', allowed are ceil, floor"),
    ("max_new_tokens", dict(max_new_tokens=0), "max_new_tokens: got 0"),
    ("positions", dict(max_new_tokens=1010), "max_new_tokens: got 1010, .* the model has 1024 positions"),
    ("temperature", dict(temperature=-1.0), "temperature: got -1.0"),
    ("top_p", dict(top_p=0.0), "top_p: got 0.0"),
    ("top_k", dict(top_k=-1), "top_k: got -1"),
  )
  def test_generate(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      generate(self.model, self.params, self.inputs, **arguments)

  def pack(self, **changes):
    return self.model.pack(**{**reference.case("square"), **changes})

  def test_placeholders_unlike_the_grids(self):
    arrays = reference.case("square")
    tokens = arrays["input_ids"]
    fewer = np.delete(tokens, np.flatnonzero(tokens[0] == reference.IMAGE)[0], axis=1)
    with self.assertRaisesRegex(ValueError, "image 0 has grid .1, 16, 16., so 64 placeholders, but prompt 0 has 63"):
      self.pack(input_ids=fewer, attention_mask=None)
    none = np.where(tokens == reference.IMAGE, 3, tokens)
    with self.assertRaisesRegex(ValueError, "image_grid_thw: 1 grids, but input_ids hold the placeholders of 0"):
      self.pack(input_ids=none)
    with self.assertRaisesRegex(ValueError, "prompt 0 has a placeholder for image 0, but there are 0 grids"):
      self.pack(pixel_values=None, image_grid_thw=None)

  @parameterized.named_parameters(
    ("grid_not_divisible", dict(image_grid_thw=[[1, 17, 16]]), "picture 0 has grid .1, 17, 16.; .* merge size 2"),
    ("grid_zero", dict(image_grid_thw=[[0, 16, 16]]), "picture 0 has grid"),
    ("grid_shape", dict(image_grid_thw=[[16, 16]]), r"image_grid_thw: got int64 of shape \(1, 2\)"),
    ("grid_without_pixels", dict(pixel_values=None), "give both or neither, got only image_grid_thw"),
    ("pixels_without_grid", dict(image_grid_thw=None), "give both or neither, got only pixel_values"),
    ("pixel_shape", dict(pixel_values=np.zeros([250, 1176])), r"pixel_values: got shape \(250, 1176\)"),
    ("mask_shape", dict(attention_mask=np.ones([1, 3])), "attention_mask: got shape"),
    ("empty_row", dict(input_ids=[[1]], attention_mask=[[0]]), "rows .0. have no token"),
    ("token_out_of_range", dict(input_ids=[[160]], attention_mask=None), "the vocabulary has ids 0 to 159"),
    ("tokens_not_integers", dict(input_ids=[[1.5]]), "input_ids: got float64"),
    ("seconds", dict(second_per_grid_ts=[1.0]), "second_per_grid_ts: got 1 values for 0 videos"),
  )
  def test_pack(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      self.pack(**changes)

  def test_prompt_longer_than_the_models_positions(self):
    with self.assertRaisesRegex(ValueError, "prompt 0 has 1025 tokens .* the model has 1024 positions"):
      self.model.pack(input_ids=np.ones([1, 1025], int))


if __name__ == "__main__":
  absltest.main()
