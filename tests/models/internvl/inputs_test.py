"""InternVL's pictures, videos and files: tiles, prompts, configs and tensor names of all ages, and bad input."""

import json
import pathlib
import tempfile
import types

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from PIL import Image
from safetensors import safe_open
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.internvl.processing_internvl import InternVLProcessor

import models
from models.checkpoints import hf
from models.inputs import video
from models.internvl import config as config_lib
from models.internvl import inputs as inputs_lib
from models.internvl.model import InternVL
from models.vision_language import View
from tests.reference import checks
from tests.reference import internvl as reference


def changed(config_name="qwen2", part=None, **values):
  """A config of the reference with values of it, or of a part of it, replaced."""
  content = json.loads(json.dumps(reference.CONFIGS[config_name]))
  (content if part is None else content[part]).update(values)
  return content


def pictures(*sizes):
  rng = np.random.default_rng(0)
  return [Image.fromarray(rng.integers(0, 255, [height, width, 3], np.uint8)) for height, width in sizes]


class TilesTest(parameterized.TestCase):
  @parameterized.parameters(
    (448, 448, 1, 1), (300, 300, 1, 1), (640, 640, 2, 2), (480, 640, 3, 4), (1080, 1920, 2, 4), (2000, 2000, 3, 3)
  )
  def test_grids(self, height, width, rows, columns):
    self.assertEqual(inputs_lib.grid(height, width, 448), (rows, columns))
    processor = GotOcr2ImageProcessorPil(size={"height": 448, "width": 448}, crop_to_patches=True)
    self.assertEqual(inputs_lib.tiles_of(rows, columns), processor.get_number_of_image_patches(height, width))

  def test_tokens_are_in_the_order_of_the_views(self):
    """The tiles of the first picture are 2 x 3, and its tokens come tile by tile: the first row is those of three tiles."""
    model = InternVL(config_lib.from_hf(reference.CONFIGS["qwen2"]))
    arrays = reference.case("two_pictures")
    plain, tiled = model.pack(**arrays), model.pack(**arrays, tile_grids=[[2, 3], [1, 1]])
    self.assertEqual(plain.views, (tuple(View(number, 2, 2) for number in range(8)),))
    self.assertEqual(tiled.views, ((View(0, 4, 6), View(0, 2, 2), View(1, 2, 2)),))
    order = np.r_[0, 1, 4, 5, 8, 9, 2, 3, 6, 7, 10, 11, 12, 13, 16, 17, 20, 21, 14, 15, 18, 19, 22:32]
    for name in ("visual_order", "visual_slots", "visual_positions"):
      np.testing.assert_array_equal(getattr(tiled.prompt, name)[:, :32], getattr(plain.prompt, name)[:, order])

  def test_pruning_does_not_depend_on_the_order(self):
    model, params = checks.load(reference, "qwen2")
    arrays = reference.case("two_pictures")
    run = lambda **grids: models.generate(
      model, params, model.pack(**arrays, **grids), checks.uneven_importance(8), keep_ratio=0.4, max_new_tokens=4
    )
    plain, tiled = run(), run(tile_grids=[[2, 3], [1, 1]])
    np.testing.assert_array_equal(plain.kept_positions, tiled.kept_positions)
    np.testing.assert_array_equal(plain.tokens, tiled.tokens)

  @parameterized.parameters(
    (dict(pixel_values=np.zeros([8, 3, 42, 42])), r"pixel_values: got shape \(8, 3, 42, 42\), must be .tiles, 3, 28, 28."),
    (dict(pixel_values=np.zeros([7, 3, 28, 28])), "prompt 0 has a placeholder for image 7, but there are 7 tiles"),
    (dict(pixel_values=np.zeros([9, 3, 28, 28])), "pixel_values: 9 tiles, but input_ids hold the placeholders of 8"),
    (dict(tile_grids=[[2, 3]]), r"tile_grids: \[\[2, 3\]\] are 7 tiles, pixel_values have 8"),
    (dict(tile_grids=[[1, 1], [2, 3]]), r"image 1 has grid .2, 3., so 28 placeholders, but prompt 0 has 24"),
    (dict(tile_grids=[[2.0, 3.0]]), "tile_grids: got float64"),
    (dict(tile_grids=[[2, 3], [1, 1]], videos=[-1]), r"videos: got shape \(1,\) for 2 pictures and frames"),
    (dict(input_ids=np.full([1, 1025], 3), attention_mask=None, pixel_values=None), "the model has 1024 positions"),
  )
  def test_bad_arrays(self, changes, message):
    model = InternVL(config_lib.from_hf(reference.CONFIGS["qwen2"]))
    with self.assertRaisesRegex(ValueError, message):
      model.pack(**{**reference.case("two_pictures"), **changes})

  def test_prompts_for_which_dynamic_rope_would_differ(self):
    """Frequencies would depend on the length beyond the positions that the config names."""
    model = InternVL(config_lib.PUBLISHED["internvl3-8b"])
    model.pack(input_ids=np.full([1, 32_768], 3))
    with self.assertRaisesRegex(ValueError, "prompt 0 has 32769 tokens .* the model has 32768 positions"):
      model.pack(input_ids=np.full([1, 32_769], 3))

  def test_sizes_of_synthetic_pictures(self):
    model = InternVL(config_lib.PUBLISHED["internvl3-8b"])
    self.assertEqual(model.picture_size(), (3 * 448, 4 * 448))
    for tokens in (256, 3 * 256, 7 * 256, 13 * 256):
      size = model.picture_size(tokens)
      prompt = model.pack(**model.synthetic_batch([size], 14)).prompt
      self.assertEqual(prompt.visual_counts.tolist(), [tokens])
    with self.assertRaisesRegex(ValueError, "visual_tokens: got 512, pictures of whole tiles have 256, 768"):
      model.picture_size(512)


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(part="text_config", model_type="llama"), "text_config.model_type is 'llama', supported is 'qwen2', 'qwen3'"),
    (dict(part="text_config", model_type="qwen3_moe"), "text_config.model_type is 'qwen3_moe'"),
    (dict(config_name="qwen3", part="text_config", attention_bias=True), "text_config.attention_bias is True"),
    (dict(part="vision_config", image_size=[28, 56]), "vision_config.image_size is .28, 56., must be square"),
    (dict(part="vision_config", image_size=21), "vision_config.image_size is 21, must be a multiple of 14 pixels"),
    (dict(part="vision_config", norm_type="batch_norm"), "vision_config.norm_type is 'batch_norm'"),
    (dict(part="vision_config", use_mask_token=True), "vision_config.use_mask_token is True"),
    (dict(part="vision_config", use_absolute_position_embeddings=False), "use_absolute_position_embeddings is False"),
    (dict(vision_feature_layer=[-1, -2]), "vision_feature_layer is .-1, -2., must be one hidden state from -3 to 2"),
    (dict(vision_feature_layer=3), "vision_feature_layer is 3"),
    (dict(vision_feature_select_strategy="full"), "vision_feature_select_strategy is 'full'"),
    (dict(downsample_ratio=0.25), "downsample_ratio is 0.25"),
  )
  def test_values_that_are_not_supported(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      config_lib.from_hf(changed(**changes))

  def test_sizes_as_numbers(self):
    content = changed(part="vision_config", image_size=28, patch_size=7)
    self.assertEqual(config_lib.from_hf(content), config_lib.from_hf(reference.CONFIGS["qwen2"]))


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def write(self, config_name="qwen2", **settings):
    reference.write_checkpoint(self.directory, config_name)
    reference.write_processor(self.directory, **settings)

  def clip(self, count=3):
    frames = np.random.default_rng(1).integers(0, 255, [count, 30, 40, 3], np.uint8)
    return video.Video(frames, tuple(0.5 * number for number in range(count)), 0.5)

  def test_prompts_in_the_words_of_transformers(self):
    self.write()
    processor = models.load_processor(self.directory)
    wide, small = pictures((56, 84), (28, 28))
    clip = self.clip()
    content = [{"type": "image"}, {"type": "text", "text": "red"}, {"type": "video"}, {"type": "image"}]
    chats = [[{"role": "user", "content": content}], [{"role": "user", "content": [{"type": "text", "text": "blue"}]}]]
    batch = processor(images=[[wide, small], []], videos=[[clip], []], messages=chats)
    # The pixels are in prompt order: seven tiles of the first picture, three frames, and a picture of one tile.
    self.assertEqual(batch["pixel_values"].shape, (11, 3, 28, 28))
    self.assertEqual(batch["tile_grids"].tolist(), [[2, 3], [1, 1], [1, 1], [1, 1], [1, 1]])
    own = GotOcr2ImageProcessorPil.from_pretrained(self.directory)
    tiles = lambda images, crop: np.asarray(own(images=images, crop_to_patches=crop, return_tensors="np")["pixel_values"])
    expected = [tiles([wide], True), tiles(list(map(Image.fromarray, clip.frames)), False), tiles([small], True)]
    np.testing.assert_array_equal(batch["pixel_values"], np.concatenate(expected))
    # transformers' replacements of the placeholders.
    names = dict(start_image_token="<img>", end_image_token="</img>", image_token="<IMG_CONTEXT>", image_seq_length=4)
    theirs = types.SimpleNamespace(**names)
    picture = lambda count: InternVLProcessor.replace_image_token(theirs, {"num_patches": [count]}, 0)
    frames = InternVLProcessor.replace_video_token(theirs, {"pixel_values_videos": [np.zeros([3])]}, 0)
    text = f"<|im_start|>user\n{picture(7)}\nred{frames}\n{picture(1)}\n<|im_end|>\n<|im_start|>assistant\n"
    ids = batch["input_ids"][0][batch["attention_mask"][0] > 0]
    self.assertEqual(ids.tolist(), processor.tokenizer(text)["input_ids"])
    inputs = InternVL(config_lib.from_hf(reference.CONFIGS["qwen2"])).pack(**batch)
    self.assertEqual(inputs.prompt.visual_counts.tolist(), [44, 0])
    self.assertEqual([view.picture for view in inputs.views[0]], [0, 0, 1, 2, 3, 4])
    # The three frames show the same four places.
    places = inputs.prompt.visual_places[0][:44].tolist()
    self.assertEqual(places[28:40], 3 * places[28:32])
    self.assertLen(set(places), 28 + 4 + 4)

  def test_limits_count_tiles(self):
    self.write()
    processor = models.load_processor(self.directory)
    grids = lambda **limits: processor(images=[pictures((500, 500))], prompts=["red"], **limits)["tile_grids"].tolist()
    self.assertEqual(grids(), [[3, 3]])
    self.assertEqual(grids(max_pixels=8 * 28**2), [[2, 2]])
    self.assertEqual(grids(max_pixels=28**2), [[1, 1]])
    self.assertEqual(grids(min_pixels=16 * 28**2, max_pixels=20 * 28**2), [[4, 4]])
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got None and 700, so 1 to 0 tiles of 784 pixels"):
      grids(max_pixels=700)
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got a very large int and None, so a very large int"):
      grids(min_pixels=10**5000)

  def test_frames_from_the_middle_of_equal_parts(self):
    self.write()
    media = models.load_processor(self.directory).media
    self.assertEqual(media.sample(100, 25.0, 1.0, 64).tolist(), [12, 37, 62, 87])
    self.assertEqual(media.sample(100, 25.0, 30.0, 5).tolist(), [10, 30, 50, 70, 90])
    self.assertEqual(media.sample(1, 25.0, 2.0, 64).tolist(), [0])
    with self.assertRaisesRegex(ValueError, "fps: got 0"):
      media.sample(100, 25.0, 0, 64)

  def test_files_that_do_not_fit(self):
    self.write(size={"height": 384, "width": 384})
    with self.assertRaisesRegex(ValueError, "makes tiles of 384 x 384 pixels, the tower takes 28"):
      models.load_processor(self.directory)
    self.write(special=("</img>", "<img>", *reference.SPECIAL[2:]))
    with self.assertRaisesRegex(ValueError, "the tokenizer's id of <img> is 151, must be 150"):
      models.load_processor(self.directory)
    (self.directory / "config.json").write_text(json.dumps({"model_type": "internvl_chat"}))
    with self.assertRaisesRegex(ValueError, "model_type 'internvl_chat': .* take its conversion, whose name ends in -hf"):
      models.load_model(self.directory)

  @parameterized.parameters("qwen2", "qwen3")
  def test_names_and_configs_of_all_ages_load_the_same(self, config_name):
    """Old files do not say at the top whether the head is tied; the text config does."""
    loaded = []
    for hub_style in (False, True):
      reference.write_checkpoint(self.directory, config_name, hub_style=hub_style)
      loaded.append(models.load_model(self.directory))
    (model, params), (hub_model, hub_params) = loaded
    self.assertEqual(model, hub_model)
    self.assertEqual("lm_head" in params, config_name == "qwen2")
    jax.tree.map(np.testing.assert_array_equal, params, hub_params)
    hf.save(self.directory, model, params)
    with safe_open(self.directory / "model.safetensors", "numpy") as file:
      self.assertCountEqual(file.keys(), map(reference.hub_name, reference.shapes(reference.CONFIGS[config_name])))

  def test_a_question_about_files(self):
    """A picture and a video from disk through the processor, with half of the tokens pruned."""
    self.write("qwen3")
    model, params = models.load_model(self.directory)
    processor = models.load_processor(self.directory)
    (picture,) = pictures((60, 90))
    picture.save(self.directory / "picture.png")
    video.write(self.directory / "clip.mp4", self.clip(12).frames, 4)
    content = [{"type": "image"}, {"type": "video"}, {"type": "text", "text": "red"}]
    inputs = model.pack(
      **processor(
        images=[[str(self.directory / "picture.png")]],
        videos=[[processor.read_video(self.directory / "clip.mp4", fps=1.0)]],
        messages=[[{"role": "user", "content": content}]],
      )
    )
    self.assertEqual(inputs.prompt.visual_counts.tolist(), [4 * (7 + 4)])
    out = models.generate(model, params, inputs, keep_ratio=0.5, max_new_tokens=4, eos_token_ids=processor.eos_token_ids)
    self.assertEqual(int((out.kept_positions >= 0).sum()), int(inputs.prompt.text_counts[0]) + 22)
    self.assertLen(processor.decode(out.tokens, out.lengths), 1)
    with self.assertRaisesRegex(ValueError, "max_new_tokens: got 1000, .* the model has 1024 positions"):
      models.generate(model, params, inputs, max_new_tokens=1000)


if __name__ == "__main__":
  absltest.main()
