"""LLaVA's pictures: image processors without torch, tilings, configs and tensor names of all ages, and bad input."""

import dataclasses
import json
import pathlib
import tempfile
import types

from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util
import numpy as np
from PIL import Image
import tokenizers
import transformers
from transformers.models.llava_next.processing_llava_next import LlavaNextProcessor

import models
from models.checkpoints import params as params_lib
from models.llava import config as config_lib
from models.llava import inputs as inputs_lib
from models.llava.model import Llava
from models.llava.model import LlavaNext
from models.vision_language import View
from tests.reference import checks
from tests.reference import llava as reference

# As llava-hf/llava-v1.6-* have them.
PINPOINTS = [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]]
TEMPLATE = (
  "{% for message in messages %}{{ message['role'].upper() + ': ' }}"
  "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<image>\n' }}"
  "{% else %}{{ content['text'] }}{% endif %}{% endfor %}{% endfor %}"
  "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)


def changed(config_name, part=None, **values):
  """A config of the reference with values of it, or of a part of it, replaced."""
  content = json.loads(json.dumps(reference.CONFIGS[config_name]))
  (content if part is None else content[part]).update(values)
  return content


def model_of(config_name):
  model = LlavaNext if config_name == "next" else Llava
  return model(config_lib.from_hf(reference.CONFIGS[config_name]))


class TilingTest(parameterized.TestCase):
  def test_as_many_tokens_as_the_processor_of_transformers_writes(self):
    config = config_lib.from_hf({"model_type": "llava_next", "image_grid_pinpoints": PINPOINTS})
    processor = types.SimpleNamespace(
      image_processor=types.SimpleNamespace(image_grid_pinpoints=PINPOINTS), patch_size=14, num_additional_image_tokens=0
    )
    processor._get_unpadded_features = types.MethodType(LlavaNextProcessor._get_unpadded_features, processor)
    rng = np.random.default_rng(0)
    sizes = [(336, 336), (672, 672), (1, 1), (2000, 1), (1, 2000), (1008, 337)] + rng.integers(8, 3000, [300, 2]).tolist()
    for height, width in sizes:
      layout = inputs_lib.tiled_layout(config, height, width)
      expected = LlavaNextProcessor._get_number_of_features(processor, height, width, 336, 336)
      self.assertLen(layout.slots, expected, msg=f"{height} x {width}")
      self.assertEqual(sum(rows * (columns + newlines) for rows, columns, newlines in layout.grids), expected)

  def test_rows_of_tiles_are_put_together(self):
    config = config_lib.from_hf(changed("next", "vision_config", patch_size=21))
    # 2 x 2 patches a tile, two tiles side by side after the base view; no padding to cut.
    layout = inputs_lib.tiled_layout(config, 42, 84)
    self.assertEqual(layout.tiles, 3)
    self.assertEqual(layout.grids, ((2, 2, False), (2, 4, True)))
    newline = inputs_lib.NEWLINE
    self.assertEqual(layout.slots.tolist(), [0, 1, 2, 3, 4, 5, 8, 9, newline, 6, 7, 10, 11, newline])

  def test_grids_of_a_batch(self):
    views = lambda config_name, case: model_of(config_name).pack(**reference.case(case)).views
    self.assertEqual(
      views("next", "two_tilings"), ((View(0, 6, 6), View(0, 10, 12, True), View(1, 6, 6), View(1, 18, 2, True)),)
    )
    self.assertEqual(views("llama", "two"), ((View(0, 6, 6), View(1, 6, 6)),))
    self.assertEqual(views("full", "with_class_token"), ((View(0, 1, 1), View(0, 6, 6), View(1, 1, 1), View(1, 6, 6)),))
    self.assertEqual(views("next", "text_only"), ((),))
    several = model_of("llama").pack(**reference.batch(("two", "text_only", "one")))
    self.assertEqual(several.views, ((View(0, 6, 6), View(1, 6, 6)), (), (View(0, 6, 6),)))


class ProcessorTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def write(self, config_name, kind, nested=False, **settings):
    """A checkpoint's config, tokenizer, template and image processor."""
    (self.directory / "config.json").write_text(json.dumps(changed(config_name, image_token_index=4)))
    settings = {
      "image_processor_type": kind,
      "size": {"shortest_edge": 42},
      "crop_size": {"height": 42, "width": 42},
      **settings,
    }
    if nested:
      (self.directory / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    else:
      (self.directory / "preprocessor_config.json").write_text(json.dumps(settings))
    words = {"<unk>": 0, "<s>": 1, "</s>": 2, "<pad>": 3, "<image>": 4, "USER": 5, ":": 6, "ASSISTANT": 7, "red": 8}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing("<s> $A", special_tokens=[("<s>", 1)])
    tokenizer.add_special_tokens(["<s>", "</s>", "<image>"])
    transformers.PreTrainedTokenizerFast(
      tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    ).save_pretrained(self.directory)
    (self.directory / "chat_template.jinja").write_text(TEMPLATE)

  def pictures(self, *sizes):
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, [height, width, 3], np.uint8)) for height, width in sizes]

  @parameterized.parameters(("CLIPImageProcessor", False), ("LlavaImageProcessorFast", True))
  def test_pictures_of_one_tile(self, kind, nested):
    self.write("llama", kind, nested)
    processor = models.load_processor(self.directory)
    wide, tall = self.pictures((50, 90), (200, 60))
    batch = processor(images=[[wide], [tall, wide]], prompts=["red", "red"])
    self.assertEqual(batch["pixel_values"].shape, (3, 3, 42, 42))
    np.testing.assert_array_equal(batch["pixel_values"][0], batch["pixel_values"][2])
    rows = [row[mask > 0].tolist() for row, mask in zip(batch["input_ids"], batch["attention_mask"])]
    # The tokenizer begins the text, since the template does not.
    self.assertEqual(rows, [[1, 5, 6] + [4] * 36 + [8, 7, 6], [1, 5, 6] + [4] * 72 + [8, 7, 6]])
    model = Llava(config_lib.from_hf(changed("llama", image_token_index=4)))
    prompt = model.pack(**batch).prompt
    self.assertEqual(np.asarray(prompt.visual_counts).tolist(), [36, 72])
    self.assertEqual(prompt.query_mask.sum(axis=1).tolist(), [3, 3])

  @parameterized.parameters(
    ("llama", "CLIPImageProcessor", {}, (40, 40)),
    ("llama", "LlavaImageProcessor", dict(do_pad=True), (60, 60)),
    ("next", "LlavaNextImageProcessor", dict(image_grid_pinpoints=[[42, 84], [84, 42], [84, 84]]), (60, 40)),
  )
  def test_what_the_tower_sees_of_a_picture(self, config_name, kind, settings, expected):
    self.write(config_name, kind, **settings)
    (seen,) = models.load_processor(self.directory).media.as_seen(self.pictures((40, 60)))
    self.assertEqual(seen.size, expected)

  def test_template_that_begins_the_text_itself(self):
    self.write("llama", "CLIPImageProcessor")
    (self.directory / "chat_template.jinja").write_text("<s> " + TEMPLATE)
    batch = models.load_processor(self.directory)(prompts=["red"])
    self.assertEqual(batch["input_ids"].tolist(), [[1, 5, 6, 8, 7, 6]])

  def test_pictures_of_several_tiles(self):
    self.write("next", "LlavaNextImageProcessor", image_grid_pinpoints=reference.CONFIGS["next"]["image_grid_pinpoints"])
    processor = models.load_processor(self.directory)
    batch = processor(images=[self.pictures((75, 37), (64, 64)), []], prompts=["red", "red"])
    self.assertEqual(batch["pixel_values"].shape, (2, 5, 3, 42, 42))
    self.assertEqual(batch["image_sizes"].tolist(), [[75, 37], [64, 64]])
    model = LlavaNext(config_lib.from_hf(changed("next", image_token_index=4)))
    self.assertEqual(np.asarray(model.pack(**batch).prompt.visual_counts).tolist(), [120 + 192, 0])

  def test_pictures_that_would_take_much_memory(self):
    self.write("llama", "CLIPImageProcessor")
    with self.assertRaisesRegex(
      ValueError, "images: picture 0 of prompt 0 is 20000 x 2 pixels, must be at most 200 times as long"
    ):
      models.load_processor(self.directory)(images=[[Image.new("L", (20_000, 2))]], prompts=["red"])
    self.write("llama", "LlavaImageProcessor", do_pad=True)
    with self.assertRaisesRegex(ValueError, "is 10001 x 100 pixels, must have at most 100,000,000 when it is padded"):
      models.load_processor(self.directory)(images=[[Image.new("L", (10_001, 100))]], prompts=["red"])

  def test_picture_too_thin_for_a_row_of_tiles(self):
    self.write("next", "LlavaNextImageProcessor", image_grid_pinpoints=reference.CONFIGS["next"]["image_grid_pinpoints"])
    batch = models.load_processor(self.directory)(images=[self.pictures((1, 900))], prompts=["red"])
    model = LlavaNext(config_lib.from_hf(changed("next", image_token_index=4)))
    self.assertEqual(np.asarray(model.pack(**batch).prompt.visual_counts).tolist(), [36])

  def test_sizes_that_cannot_be_chosen(self):
    self.write("llama", "CLIPImageProcessor")
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got None and 900"):
      models.load_processor(self.directory)(images=[self.pictures((9, 9))], prompts=["red"], max_pixels=900)
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got a very large int and None"):
      models.load_processor(self.directory)(images=[self.pictures((9, 9))], prompts=["red"], min_pixels=10**5000)

  def test_unknown_image_processor(self):
    self.write("llama", "SiglipImageProcessor")
    with self.assertRaisesRegex(ValueError, "image_processor_type is 'SiglipImageProcessor', supported are CLIP"):
      models.load_processor(self.directory)


class CheckpointTest(parameterized.TestCase):
  @parameterized.parameters("mistral", "qwen2", "next")
  def test_names_of_all_ages_load_the_same_and_are_saved(self, config_name):
    checks.check_names_of_all_ages(reference, config_name)

  def test_feature_layers_by_number(self):
    for layer, expected in ((-2, (2,)), (0, (0,)), (3, (3,)), (-4, (0,)), ([-1, 1], (3, 1)), ([-2], (2,))):
      config = config_lib.from_hf(changed("llama", vision_feature_layer=layer))
      self.assertEqual(config.vision.feature_layers, expected)

  def test_published(self):
    content = {
      "model_type": "llava",
      "text_config": {"model_type": "llama", "max_position_embeddings": 4096, "rms_norm_eps": 1e-5, "vocab_size": 32064},
    }
    self.assertEqual(config_lib.from_hf(content), config_lib.PUBLISHED["llava-1.5-7b"])
    for name, count in (("llava-1.5-7b", 7_063_427_072), ("llava-1.5-13b", 13_351_494_656)):
      config = config_lib.PUBLISHED[name]
      params = params_lib.abstract(
        Llava(dataclasses.replace(config, text=dataclasses.replace(config.text, num_hidden_layers=1)))
      )
      # All layers of the decoder have the same shape, so one is enough.
      found = 0
      for path, value in traverse_util.flatten_dict(params, sep="/").items():
        found += value.size * (config.text.num_hidden_layers if path.startswith("language_model/layers_0/") else 1)
      self.assertEqual(found, count)

  @parameterized.parameters(
    ("llama", "text_config", dict(model_type="gemma"), "text_config.model_type is 'gemma', supported is 'llama', "),
    ("llama", "text_config", dict(hidden_act="gelu"), "text_config.hidden_act is 'gelu'"),
    ("llama", "text_config", dict(attention_bias=True), "text_config.attention_bias is True"),
    ("llama", "text_config", dict(mlp_bias=True), "text_config.mlp_bias is True"),
    (
      "llama",
      "text_config",
      dict(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
      "rope_type is 'linear'",
    ),
    ("mistral", "text_config", dict(sliding_window=512), r"sliding_window is 512, must be null or at least .* \(1024\)"),
    ("llama", "vision_config", dict(model_type="siglip_vision_model"), "vision_config.model_type is 'siglip"),
    ("llama", "vision_config", dict(hidden_act="gelu"), "vision_config.hidden_act is 'gelu'"),
    ("llama", "vision_config", dict(image_size=[42, 84]), r"vision_config.image_size is \[42, 84\], must be one number"),
    ("llama", None, dict(projector_hidden_act="relu"), "projector_hidden_act is 'relu'"),
    ("llama", None, dict(vision_feature_layer=4), r"vision_feature_layer is \[4\], the vision tower has .* -4 to 3"),
    ("next", None, dict(vision_feature_select_strategy="full"), "vision_feature_select_strategy is 'full'"),
    ("next", None, dict(image_grid_pinpoints=[[42, 80]]), "must be multiples of the tile's 42 pixels"),
  )
  def test_config_values_that_are_not_supported(self, config_name, part, values, message):
    with self.assertRaisesRegex(ValueError, message):
      config_lib.from_hf(changed(config_name, part, **values))

  def test_window_as_long_as_the_positions(self):
    config = config_lib.from_hf(changed("mistral", "text_config", sliding_window=1024))
    self.assertEqual(config, config_lib.from_hf(reference.CONFIGS["mistral"]))


class BadInputTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("sizes_missing", dict(image_sizes=None), "image_sizes and pixel_values: give both or neither, got only pixel_values"),
    ("pixels_missing", dict(pixel_values=None), "give both or neither, got only image_sizes"),
    ("sizes_of_other_pictures", dict(image_sizes=[[75, 37]]), r"image_sizes: got int64 of shape \(1, 2\), .* \[2, 2\]"),
    ("sizes_not_positive", dict(image_sizes=[[0, 5], [9, 9]]), "image_sizes: .* must be positive integers"),
    ("sizes_not_integers", dict(image_sizes=[[9.0, 5.0], [9.0, 9.0]]), "image_sizes: got float64"),
    (
      "fewer_tiles_than_given",
      dict(image_sizes=[[55, 70], [42, 84]]),
      r"picture 1 has size \[42, 84\], so 3 tiles, but pixel_values have 4",
    ),
    (
      "more_tiles_than_given",
      dict(pixel_values=np.ones([2, 4, 3, 42, 42])),
      r"picture 0 has size \[55, 70\], so 5 tiles, but pixel_values have 4",
    ),
    (
      "another_tiling_of_as_many_tiles",
      dict(image_sizes=[[70, 70], [200, 22]]),
      r"image_sizes: image 0 has size \[70, 70\], so .* placeholders, but prompt 0 has",
    ),
    (
      "no_tiles_axis",
      dict(pixel_values=np.ones([2, 3, 42, 42])),
      r"pixel_values: got shape \(2, 3, 42, 42\), must be \[pictures, tiles, 3, 42, 42\]",
    ),
    ("pixels_not_a_number", dict(pixel_values=np.full([2, 5, 3, 42, 42], np.nan)), "pixel_values: got numbers from nan"),
    ("sizes_of_several_lengths", dict(image_sizes=[[1], [1, 2]]), "image_sizes: got .*, must be positive integers"),
    ("tile_size", dict(pixel_values=np.ones([2, 5, 3, 40, 42])), r"pixel_values: got shape \(2, 5, 3, 40, 42\)"),
  )
  def test_pack(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      model_of("next").pack(**{**reference.case("two_tilings"), **changes})

  def test_placeholders_unlike_the_pictures(self):
    model, arrays = model_of("llama"), reference.case("two")
    with self.assertRaisesRegex(ValueError, r"image 1 has tile \[3, 42, 42\], so 36 placeholders, but prompt 0 has 28"):
      model.pack(**{**arrays, "input_ids": arrays["input_ids"][:, :-15], "attention_mask": None})
    with self.assertRaisesRegex(ValueError, "pixel_values: prompt 0 has a placeholder for image 1, but there are 1 tiles"):
      model.pack(**{**arrays, "pixel_values": arrays["pixel_values"][:1]})
    with self.assertRaisesRegex(ValueError, "pixel_values: 2 tiles, but input_ids hold the placeholders of 0"):
      model.pack(input_ids=[[1, 2]], pixel_values=arrays["pixel_values"])
    with self.assertRaisesRegex(ValueError, r"pixel_values: got shape \(1, 5, 3, 42, 42\), must be \[pictures, 3, 42, 42\]"):
      model.pack(**{**arrays, "pixel_values": np.zeros([1, 5, 3, 42, 42])})


if __name__ == "__main__":
  absltest.main()
