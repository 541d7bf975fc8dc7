"""LLaVA-OneVision's pictures and videos: layouts, processor, configs and tensor names of all ages, and bad input."""

import json
import pathlib
import tempfile
import types

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image
from transformers.models.llava_onevision.processing_llava_onevision import LlavaOnevisionProcessor

import models
from models import chat
from models import registry
from models.inputs import messages
from models.inputs import video as video_lib
from models.inputs.video import Video
from models.llava_onevision import config as config_lib
from models.llava_onevision import inputs as inputs_lib
from models.llava_onevision.model import LlavaOnevision
from models.vision_language import Features
from models.vision_language import View
from tests.reference import checks
from tests.reference import llava_onevision as reference
from tests.reference import numpy_hawk

TILE = reference.TILE


def changed(part=None, **values):
  """A config of the reference with values of it, or of a part of it, replaced."""
  content = json.loads(json.dumps(reference.CONFIGS["untied"]))
  (content if part is None else content[part]).update(values)
  return content


def make_model():
  return LlavaOnevision(config_lib.from_hf(reference.CONFIGS["untied"]))


def transformers_processor(pinpoints, side, limit):
  """What transformers' processor needs to count tokens."""
  processor = types.SimpleNamespace(
    image_processor=types.SimpleNamespace(image_grid_pinpoints=pinpoints),
    num_image_tokens=side**2,
    vision_aspect_ratio=limit,
    video_token="v",
  )
  for name in ("_get_unpadded_features", "_get_number_of_features", "replace_video_token"):
    setattr(processor, name, types.MethodType(getattr(LlavaOnevisionProcessor, name), processor))
  return processor


class LayoutTest(parameterized.TestCase):
  def test_as_many_tokens_as_the_processor_of_transformers_writes(self):
    published, small = config_lib.PUBLISHED["llava-onevision-7b"], config_lib.from_hf(reference.CONFIGS["untied"])
    rng = np.random.default_rng(0)
    for config, side, largest in ((published, 27, 3000), (small, 5, 300)):
      processor = transformers_processor(
        [list(size) for size in config.grid_pinpoints], side, f"anyres_max_{config.max_tiles}"
      )
      tile = config.vision.image_size
      sizes = [(tile, tile), (1, 1), (2000, 1), (1, 2000)] + rng.integers(8, largest, [60, 2]).tolist()
      for height, width in sizes:
        layout = inputs_lib.picture_layout(config, height, width)
        expected = processor._get_number_of_features(height, width, tile, tile)
        self.assertEqual(layout.count, expected, msg=f"{height} x {width}")
        (views,) = layout.views
        self.assertEqual(sum(rows * (columns + newlines) for rows, columns, newlines in views), expected)
      for frames in (1, 32):
        arrays = {"pixel_values_videos": [np.zeros([frames, 1])]}
        expected = len(processor.replace_video_token(arrays, 0))
        self.assertEqual(inputs_lib.video_layout(config, frames).count, expected)

  @parameterized.parameters(
    (384, 384, 1485),
    (480, 640, 2929),
    (899, 1024, 6551),
    (1080, 1920, 7269),
    (2304, 2304, 7371),
    (3000, 4000, 7309),
    (1500, 300, 3105),
  )
  def test_tokens_of_the_published_sizes(self, height, width, expected):
    config = config_lib.PUBLISHED["llava-onevision-7b"]
    self.assertEqual(inputs_lib.picture_layout(config, height, width).count, expected)

  def test_scaling_down(self):
    places = np.arange(20, dtype=np.int32).reshape(4, 5)
    taps, weights = inputs_lib.resize(places, 2, 3)
    np.testing.assert_allclose(weights.sum(axis=-1), 1, rtol=1e-6)
    # Pixel centres: row 0 is halfway between rows 0 and 1; column 0 is a third of the way from column 0 to column 1.
    self.assertEqual(taps[0, 0].tolist(), [0, 1, 5, 6])
    np.testing.assert_allclose(weights[0, 0], [1 / 3, 1 / 6, 1 / 3, 1 / 6], rtol=1e-6)
    taps, weights = inputs_lib.resize(places, 4, 5)
    np.testing.assert_array_equal(taps[..., 0], places)
    np.testing.assert_array_equal(weights[..., 0], 1)

  def test_views_of_a_batch(self):
    views = make_model().pack(**reference.batch(("several", "scaled_down", "text_only", "video"))).views
    newline = lambda picture: View(picture, 1, 0, True)
    self.assertEqual(
      views,
      (
        (View(0, 5, 5), newline(0), View(1, 5, 5), newline(1)),
        (View(0, 5, 5), View(0, 7, 7, True)),
        (),
        (View(0, 3, 3), View(1, 3, 3), View(2, 3, 3), newline(2)),
      ),
    )

  def test_places_in_frames(self):
    """Tokens at the same place in a video's frames share an id; newlines and pictures have ids of their own."""
    prompt = make_model().pack(**reference.batch(("two_videos", "several"))).prompt
    places = prompt.visual_places[0, : 2 * 28]
    for first in (0, 28):
      np.testing.assert_array_equal(places[first : first + 27], np.tile(places[first : first + 9], 3))
    self.assertLen({*places.tolist()}, 2 * (9 + 1))
    self.assertLen({*prompt.visual_places[1, :52].tolist()}, 52)

  def test_work_of_tiles_and_frames(self):
    model = make_model()
    one = model.vision_flops(reference.case("one_frame"))
    for case, tiles in (("square", 2), ("several", 2), ("image_and_video", 5), ("scaled_down", 10), ("text_only", 0)):
      self.assertEqual(model.vision_flops(reference.case(case)), tiles * one)

  def test_typical_picture(self):
    model = LlavaOnevision(config_lib.PUBLISHED["llava-onevision-7b"])
    self.assertEqual(model.picture_size(), (1152, 1152))
    self.assertEqual(model.picture_size(1485), (384, 384))
    with self.assertRaisesRegex(ValueError, r"visual_tokens: got 9, pictures as large as a grid pinpoint have \[1485, "):
      model.picture_size(9)


class ProcessorTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    reference.write_checkpoint(self.directory, "untied", hub_style=True)
    reference.write_processor(self.directory)

  def picture(self, height, width):
    return np.random.default_rng(height).integers(0, 255, [height, width, 3], np.uint8)

  def test_batch(self):
    alone, wide, tall = self.picture(60, 100), self.picture(20, 40), self.picture(50, 37)
    clips = [Video(np.stack([self.picture(30, 44)] * count), (0.0,) * count, 1.0) for count in (3, 1)]
    batch = models.load_processor(self.directory)(
      images=[[alone], [wide, tall], [], [tall]],
      videos=[[], [], [], clips],
      prompts=["w5", "w6 w7", "w8", "w9"],
    )
    self.assertEqual(batch["pixel_values"].shape, (4, 7, 3, TILE, TILE))
    self.assertEqual(batch["image_sizes"].tolist(), [[60, 100], [20, 40], [50, 37], [50, 37]])
    self.assertEqual(batch["batch_num_images"].tolist(), [1, 2, 1])
    self.assertEqual(batch["pixel_values_videos"].shape, (2, 3, 3, TILE, TILE))
    self.assertEqual(batch["video_frames"].tolist(), [3, 1])
    # The frame is scaled whatever its aspect ratio; one of several pictures is padded with gray to a square first.
    scaled = lambda image: np.asarray(image.resize((TILE, TILE), Image.Resampling.BICUBIC)).transpose(2, 0, 1) / 127.5 - 1
    gray = Image.new("RGB", (40, 40), (127, 127, 127))
    gray.paste(Image.fromarray(wide), (0, 10))
    np.testing.assert_allclose(batch["pixel_values_videos"][1, 0], scaled(Image.fromarray(self.picture(30, 44))), atol=1e-5)
    np.testing.assert_allclose(batch["pixel_values"][1, 0], scaled(gray), atol=1e-5)
    prompt = make_model().pack(**batch).prompt
    self.assertEqual(np.asarray(prompt.visual_counts).tolist(), [70, 26 + 26, 0, 61 + 28 + 10])
    # The question ends before the end of the message.
    queries = [tokens[mask].tolist() for tokens, mask in zip(prompt.text_tokens, prompt.query_mask)]
    self.assertEqual(queries, [[5], [6, 7], [], [9]])

  def test_frames_from_first_to_last(self):
    media = models.load_processor(self.directory).media
    self.assertEqual(media.sample(100, 25.0, 2.0, 64).tolist(), [0, 14, 28, 42, 56, 70, 84, 99])
    self.assertEqual(media.sample(3, 25.0, 2.0, 64).tolist(), [0, 1, 2])
    self.assertEqual(media.sample(1000, 25.0, 2.0, 5).tolist(), [0, 249, 499, 749, 999])

  def test_answers_about_files(self):
    """From files on disk to an answer: a picture, several, and a video."""
    picture, video = self.directory / "picture.png", self.directory / "video.mp4"
    Image.fromarray(self.picture(60, 100)).save(picture)
    video_lib.write(video, [self.picture(32, 48)] * 8, fps=4)
    model, params = models.load_model(self.directory)
    processor = models.load_processor(self.directory)
    batch = processor(
      images=[[picture], [picture, picture], []],
      videos=[[], [], [processor.read_video(video, fps=2.0)]],
      prompts=["w5 w6", "w7", "w8 w9 w10"],
    )
    inputs = model.pack(**batch)
    self.assertEqual(np.asarray(inputs.prompt.visual_counts).tolist(), [70, 52, 4 * 9 + 1])
    out = models.generate(model, params, inputs, keep_ratio=0.2, max_new_tokens=4, eos_token_ids=processor.eos_token_ids)
    kept = [np.isin(visual[visual >= 0], row).sum() for visual, row in zip(inputs.prompt.visual_order, out.kept_positions)]
    self.assertEqual(kept, [numpy_hawk.count_to_keep(count, 0.2) for count in (70, 52, 37)])
    answers = processor.decode(out.tokens, out.lengths)
    self.assertLen([answer for answer in answers if answer.startswith("w")], 3)

  def test_pictures_of_several_turns(self):
    """One picture is tiled. With another, in a later turn, both are padded to squares, and encoded anew."""
    encoded = []

    def encode(vision):
      encoded.append(vision.tiles.shape)
      return Features(np.zeros([len(vision.taps), 1], np.float32))

    processor, picture = models.load_processor(self.directory), Image.fromarray(self.picture(60, 100))
    ask = messages.read({"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": "w5"}]})
    talk = chat.Conversation(make_model(), processor, encode).add(ask)
    self.assertEqual(talk.pack()[0].prompt.visual_counts.tolist(), [70])
    self.assertEqual([shown.size for shown in talk.pictures], [(100, 60)])
    talk = talk.add(messages.read({"role": "assistant", "content": "w6"})).add(ask)
    inputs, features = talk.pack()
    self.assertEqual(inputs.prompt.visual_counts.tolist(), [52])
    self.assertEqual((encoded[-1], len(features.tokens)), (inputs.vision.tiles.shape, len(inputs.vision.taps)))
    self.assertEqual([shown.size for shown in talk.pictures], [(100, 100)] * 2)
    self.assertEqual(talk.pictures[0].getpixel((0, 0)), (127, 127, 127))

  @parameterized.parameters(
    (dict(size={"height": 42, "width": 42}), "makes tiles of 42 x 42 pixels, the tower takes 37"),
    (dict(image_grid_pinpoints=[[37, 74]]), r"image_grid_pinpoints are \[\(37, 74\)\], config.json has \[\(37, 37\), "),
    (dict(image_processor_type="CLIPImageProcessor"), "is 'CLIPImageProcessor', supported is LlavaOnevisionImageProcessor"),
  )
  def test_image_processors_that_do_not_fit(self, settings, message):
    reference.write_processor(self.directory, **settings)
    with self.assertRaisesRegex(ValueError, message):
      models.load_processor(self.directory)

  def test_sizes_that_cannot_be_chosen(self):
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got 900 and None"):
      models.load_processor(self.directory)(images=[[self.picture(9, 9)]], prompts=["w5"], min_pixels=900)


class CheckpointTest(parameterized.TestCase):
  @parameterized.parameters(*reference.CONFIGS)
  def test_names_of_all_ages_load_the_same_and_are_saved(self, config_name):
    checks.check_names_of_all_ages(reference, config_name)

  def test_pooling_head_is_left_out(self):
    self.assertTrue(make_model().leaves_out("vision_tower.head.probe"))
    self.assertFalse(make_model().leaves_out("lm_head.weight"))

  @parameterized.parameters(
    ("text_config", dict(model_type="llama"), "text_config.model_type is 'llama', supported is 'qwen2'"),
    ("vision_config", dict(model_type="clip_vision_model"), "vision_config.model_type is 'clip_vision_model'"),
    ("vision_config", dict(hidden_act="gelu"), "vision_config.hidden_act is 'gelu'"),
    ("vision_config", dict(image_size=[37, 74]), r"vision_config.image_size is \[37, 74\], must be one number"),
    (None, dict(projector_hidden_act="relu"), "projector_hidden_act is 'relu'"),
    (None, dict(vision_feature_select_strategy="default"), "vision_feature_select_strategy is 'default'"),
    (None, dict(vision_feature_layer=4), r"vision_feature_layer is \[4\], the vision tower has .* -4 to 3"),
    (None, dict(vision_aspect_ratio="anyres"), "vision_aspect_ratio is 'anyres', must be like 'anyres_max_9'"),
    (None, dict(image_grid_pinpoints=[[37, 80]]), "must be multiples of the tile's 37 pixels"),
  )
  def test_config_values_that_are_not_supported(self, part, values, message):
    with self.assertRaisesRegex(ValueError, message):
      config_lib.from_hf(changed(part, **values))

  @parameterized.parameters(("llava",), ("llava_qwen",))
  def test_checkpoint_of_the_authors_own_code(self, model_type):
    content = {"model_type": model_type, "mm_vision_tower": "google/siglip-so400m-patch14-384", "hidden_size": 896}
    with self.assertRaisesRegex(ValueError, "authors' own code.* take .* whose name ends in -hf"):
      registry.build(pathlib.Path("somewhere"), content)


class BadInputTest(parameterized.TestCase):
  @parameterized.named_parameters(
    ("sizes_missing", dict(image_sizes=None), "image_sizes and pixel_values: give both or neither, got only pixel_values"),
    ("sizes_not_positive", dict(image_sizes=[[0, 5], [9, 9]]), "image_sizes: .* must be positive integers"),
    ("too_few_groups", dict(batch_num_images=[1]), r"batch_num_images: got \[1\], must be .*, 2 in all"),
    ("no_group", dict(batch_num_images=[0, 2]), r"batch_num_images: got \[0, 2\]"),
    ("groups_not_integers", dict(batch_num_images=[2.0]), r"batch_num_images: got \[2.0\]"),
    (
      "large_groups",
      dict(batch_num_images=np.asarray([2**63, 2], np.uint64)),
      r"batch_num_images: got \[9223372036854775808",
    ),
    ("alone", dict(batch_num_images=None), r"picture 0 has size \[50, 31\], so 3 tiles, but pixel_values have 1"),
    ("tile_size", dict(pixel_values=np.ones([2, 1, 3, 42, 42])), r"got shape \(2, 1, 3, 42, 42\), must be .*3, 37, 37\]"),
  )
  def test_pictures(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      make_model().pack(**{**reference.case("several"), **changes})

  def test_numbers_of_pictures_of_any_integer_type(self):
    case = reference.case("several")
    for dtype in (np.uint8, np.int64, np.uint64):
      make_model().pack(**{**case, "batch_num_images": case["batch_num_images"].astype(dtype)})

  @parameterized.named_parameters(
    ("frame_size", dict(pixel_values_videos=np.ones([1, 3, 3, 42, 42])), r"pixel_values_videos: got shape \(1, 3, 3, 42, "),
    ("frames", dict(video_frames=[4]), r"video_frames: got \[4\], must be from 1 to 3 for each of 1 videos"),
    ("fewer", dict(video_frames=[2]), "prompt 0 has a placeholder for video 1, but there are 1 frame counts"),
    ("videos", dict(pixel_values_videos=None), "prompt 0 has a placeholder for video 0, but there are 0 frame counts"),
  )
  def test_videos(self, changes, message):
    with self.assertRaisesRegex(ValueError, message):
      make_model().pack(**{**reference.case("video"), **changes})

  def test_padding_of_shorter_videos_has_no_influence(self):
    model, params = checks.load(reference, "untied")
    arrays = reference.case("video")
    ((features, _),) = checks.run(model, params, arrays)
    longer = np.concatenate([arrays["pixel_values_videos"], np.ones([1, 1, 3, TILE, TILE])], axis=1)
    ((again, _),) = checks.run(model, params, {**arrays, "pixel_values_videos": longer, "video_frames": [3]})
    checks.close(again, features, "features")


if __name__ == "__main__":
  absltest.main()
