"""Bad arguments get one clear error that names them, before anything runs on the device."""

import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from models import generate
from models import registry
from models.checkpoints import params as params_lib
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import internvl as internvl_reference
from tests.reference import llava as llava_reference
from tests.reference import llava_onevision as onevision_reference
from tests.reference import qwen2_5_vl as reference
from tests.reference import qwen3_vl as qwen3_reference


def mask_with(value):
  mask = reference.case("square")["attention_mask"].astype(type(value))
  mask[0, 1] = value
  return mask


def pixels_with(value):
  pixels = reference.case("square")["pixel_values"].astype(complex if isinstance(value, complex) else np.float64)
  pixels[3, 5] = value
  return pixels


def replaced(value):
  """Makes a function that puts a value in the second place of an array's last row."""

  def change(array):
    array = np.asarray(array)
    array = np.array(
      array, np.int64 if isinstance(value, np.int64) else np.result_type(array.dtype, np.min_scalar_type(value))
    )
    array.reshape(len(array), -1)[-1, 1] = value
    return array

  return change


# A config and a prompt with one picture of every port.
PORTS = {
  "internvl": (internvl_reference, "qwen2", "one_tile"),
  "llava": (llava_reference, "llama", "one"),
  "llava_onevision": (onevision_reference, "untied", "square"),
  "qwen2_5_vl": (reference, "gqa", "square"),
  "qwen3_vl": (qwen3_reference, "gqa", "exact_6x6"),
}
SPOILED = {
  "nan": ("pixel_values", replaced(np.nan), "got numbers from nan to nan, must be finite"),
  "infinity": ("pixel_values", replaced(np.inf), "got numbers from .* to inf, must be finite"),
  "complex": ("pixel_values", replaced(1j), "got complex"),
  "hole": ("attention_mask", replaced(0), "row 0 has 1 zeros that are not all at one end"),
  "negative": ("attention_mask", replaced(-1), "holds other values than 0 and 1"),
  "token": ("input_ids", replaced(np.int64(2**40)), "from .* to 1099511627776, the vocabulary has ids 0 to 159"),
}


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
    ("top_k_float", dict(top_k=1e300), r"top_k: got 1e\+300, must be a whole number"),
    ("top_p_text", dict(top_p="a"), "top_p: got 'a', must be in"),
    ("temperature_flag", dict(temperature=False), "temperature: got False"),
    ("temperature_infinite", dict(temperature=float("inf")), "temperature: got inf"),
    ("seed_float", dict(seed=0.5), "seed: got 0.5, must be a whole number"),
    ("seed_flag", dict(seed=False), "seed: got False, must be a whole number"),
    ("selector_seed", dict(keep_ratio=0.5, selector_seed=0.5), "selector_seed: got float64"),
    ("max_new_tokens_text", dict(max_new_tokens="a"), "max_new_tokens: got 'a'"),
    ("max_new_tokens_huge", dict(max_new_tokens=10**4000), "max_new_tokens: got 1000+[.]*, but the longest prompt"),
    ("eos_number", dict(eos_token_ids=3), "eos_token_ids: got 3, must be a list of token ids"),
    ("eos_large", dict(eos_token_ids=[2**31]), "eos_token_ids: got 2147483648, must be a whole number from 0 to 2147483647"),
    ("keep_mass", dict(keep_mass=[0.5]), r"keep_mass: got \[0.5\], must be in"),
    ("prune_layer", dict(keep_ratio=0.5, selector="fastv", prune_layer=2), "prune_layer: got 2, must be .* from 1 to 1"),
    ("return_logits", dict(return_logits=1), "return_logits: got 1, must be True or False"),
    ("importance_complex", dict(head_importance=np.ones(8) * 1j), "head_importance: got complex128"),
    ("features", dict(features=np.ones([64, 64])), "features: got ndarray, must be the result of encode_pictures"),
  )
  def test_generate(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      generate(self.model, self.params, self.inputs, **arguments)

  def test_arguments_in_the_wrong_place(self):
    with self.assertRaisesRegex(ValueError, "model: got dict, must be VisionLanguageModel"):
      generate(self.params, self.model, self.inputs)
    with self.assertRaisesRegex(ValueError, "inputs: got dict, must be Inputs"):
      generate(self.model, self.params, reference.case("square"))
    for params in (None, {}, {"params": self.params}, {"language_model": 3}):
      with self.assertRaisesRegex(ValueError, "params: must be the parameters of the model, .* language_model is missing"):
        generate(self.model, params, self.inputs)

  def test_arguments_of_another_model(self):
    llava = registry.build(pathlib.Path("llava"), llava_reference.CONFIGS["llama"])
    with self.assertRaisesRegex(ValueError, "inputs: were packed for a model with 1 position axes, this one has 3"):
      generate(self.model, self.params, llava.pack(**llava_reference.case("one")))
    other = registry.build(pathlib.Path("other"), reference.CONFIGS["mqa"])
    with self.assertRaisesRegex(ValueError, r"params: belong to another model: .* shape \(160, 64\), .* has \(160, 96\)"):
      generate(other, self.params, self.inputs)

  @parameterized.named_parameters(
    ("keep_count_zero", dict(keep_count=0), "keep_count: got 0, must be a whole number of at least 1"),
    ("keep_count_float", dict(keep_count=1.5), "keep_count: got 1.5"),
    ("importance", dict(keep_count=4, head_importance=np.ones(7)), r"head_importance: got shape \(7,\), must be \[8\]"),
    ("importance_text", dict(keep_count=4, head_importance="uniform"), r"head_importance: got shape \(\), must be \[8\]"),
    ("counts", dict(keep_count=4, counts=np.ones([2], np.int32)), r"counts: got int32 of shape \(2,\), must be .* \[1\]"),
    ("counts_alone", dict(counts=np.ones([1], np.int32)), "counts: needs keep_count"),
    ("normalization", dict(normalization="l3"), "normalization: got 'l3', allowed are l2"),
  )
  def test_apply(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      self.model.apply({"params": self.params}, self.inputs, **arguments)

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
    ("tokens_of_several_lengths", dict(input_ids=[[1], [1, 2]]), "input_ids: got .*, must be integers"),
    ("mask_not_a_number", dict(attention_mask=mask_with(np.nan)), "attention_mask: holds other values than 0 and 1"),
    ("mask_negative", dict(attention_mask=mask_with(-1)), "attention_mask: holds other values than 0 and 1"),
    ("mask_hole", dict(attention_mask=mask_with(0)), "attention_mask: row 0 has 1 zeros that are not all at one end"),
    ("mask_texts", dict(attention_mask=mask_with("1")), "attention_mask: got <U"),
    (
      "pixels_not_a_number",
      dict(pixel_values=pixels_with(np.nan)),
      "pixel_values: got numbers from nan to nan, must be",
    ),
    ("pixels_infinite", dict(pixel_values=pixels_with(-np.inf)), "pixel_values: got numbers from -inf to"),
    ("pixels_large", dict(pixel_values=pixels_with(1e300)), r"to 1e\+300, must be finite and from -10000 to 10000"),
    ("pixels_complex", dict(pixel_values=pixels_with(1j)), "pixel_values: got complex128 of shape"),
    ("pixels_missing", dict(pixel_values=[[1.0], [1.0, 2.0]]), "pixel_values: got .*, must be an array of numbers"),
    (
      "grid_that_overflows",
      dict(image_grid_thw=[[2**62 + 64, 2, 2]]),
      r"got .* require \(18446744073709551872, ",
    ),
    (
      "grid_of_nothing",
      dict(image_grid_thw=[[2**62, 2, 2]], pixel_values=np.zeros([0, 1176])),
      r"pixel_values: got shape \(0, 1176\), .* require \(18446744073709551616, 1176\)",
    ),
    ("seconds", dict(second_per_grid_ts=[1.0]), "second_per_grid_ts: got 1 values for 0 videos"),
    ("seconds_complex", dict(second_per_grid_ts=[1j]), "second_per_grid_ts: got complex128"),
  )
  def test_pack(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      self.pack(**changes)

  @parameterized.product(port=tuple(PORTS), spoiled=tuple(SPOILED))
  def test_pack_of_every_port(self, port, spoiled):
    subject, config, case = PORTS[port]
    model = registry.build(pathlib.Path(port), subject.CONFIGS[config])
    name, change, message = SPOILED[spoiled]
    arrays = subject.case(case)
    arrays[name] = change(arrays[name])
    with self.assertRaisesRegex(ValueError, f"^{name}: {message}"):
      model.pack(**arrays)

  @parameterized.parameters(
    ("internvl", dict(tile_grids=[[2**62, 4]]), r"tile_grids: .* are 18446744073709551617 tiles, pixel_values have"),
    ("internvl", dict(tile_grids=[[1.0, 1.0]]), "tile_grids: got float64, must be|tile_grids: got float64 of shape"),
    ("internvl", dict(videos=[2**40]), "videos: from 1099511627776 to 1099511627776, must be -1 for pictures"),
    ("internvl", dict(videos=["a"]), "videos: got <U1 of shape"),
    (
      "llava_onevision",
      dict(batch_num_images=[2**63, 2**63 + 1]),
      "batch_num_images: got .*, must be the number of pictures",
    ),
    ("llava_onevision", dict(image_sizes=[["a", "b"]]), "image_sizes: got <U1 of shape"),
    ("qwen3_vl", dict(image_grid_thw=[[2**62, 2, 2]]), r"pixel_values: got shape .* require \(18446744073709551616, "),
  )
  def test_pack_of_other_arrays(self, port, changes, message):
    subject, config, case = PORTS[port]
    model = registry.build(pathlib.Path(port), subject.CONFIGS[config])
    with self.assertRaisesRegex(ValueError, f"^{message}"):
      model.pack(**{**subject.case(case), **changes})

  @parameterized.parameters(1e9, 1e300)
  def test_video_longer_than_the_models_positions(self, seconds):
    with self.assertRaisesRegex(ValueError, "input_ids: prompt 0 has .* reaches position .* the model has 1024 positions"):
      self.model.pack(**{**reference.case("video"), "second_per_grid_ts": [seconds]})

  def test_padding_on_either_side(self):
    for padding in ("left", "right"):
      self.model.pack(**reference.batch(("text_only", "square"), padding))

  def test_prompt_longer_than_the_models_positions(self):
    with self.assertRaisesRegex(ValueError, "prompt 0 has 1025 tokens .* the model has 1024 positions"):
      self.model.pack(input_ids=np.ones([1, 1025], int))


if __name__ == "__main__":
  absltest.main()
