"""Pictures and chat text to arrays."""

import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from models import load_processor
from models import processor as processor_lib

EMBEDDED = pathlib.Path(__file__).parents[2] / "experiments" / "embedded_models"


class ProcessorTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.processor = load_processor(str(EMBEDDED / "qwen2_5_vl"))
    cls.picture = np.asarray(Image.open(EMBEDDED / "picture.png"))

  def text(self, row, mask):
    return self.processor.tokenizer.decode(row[mask.astype(bool)])

  def test_prompt(self):
    batch = self.processor(images=[[self.picture], []], prompts=["Which digit is red?", "Count."])
    start, end = "<|vision_start|>", "<|vision_end|>"
    self.assertEqual(
      self.text(batch["input_ids"][0], batch["attention_mask"][0]),
      f"<|im_start|>user\n{start}{'<|image_pad|>' * 144}{end}Which digit is red?<|im_end|>\n<|im_start|>assistant\n",
    )
    self.assertEqual(
      self.text(batch["input_ids"][1], batch["attention_mask"][1]),
      "<|im_start|>user\nCount.<|im_end|>\n<|im_start|>assistant\n",
    )
    self.assertEqual(batch["image_grid_thw"].tolist(), [[1, 24, 24]])

  def test_messages_place_pictures(self):
    chat = [{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}]
    batch = self.processor(images=[[self.picture]], messages=[chat])
    text = self.text(batch["input_ids"][0], batch["attention_mask"][0])
    self.assertIn("user\na<|vision_start|>", text)
    self.assertIn("<|vision_end|>b<|im_end|>", text)

  def test_pixel_limits(self):
    picture = Image.fromarray(self.picture).resize((320, 160))
    grid = lambda **limits: self.processor(images=[[picture]], prompts=["?"], **limits)["image_grid_thw"][0].tolist()
    self.assertEqual(grid(), [1, 20, 40])
    frames, height, width = grid(max_pixels=64 * 256)
    self.assertLessEqual(height * width, 64 * 4)
    frames, height, width = grid(min_pixels=400 * 256)
    self.assertGreaterEqual(height * width, 400 * 4)
    with self.assertRaisesRegex(ValueError, "max_pixels: got 10, must be at least 256"):
      grid(max_pixels=10)
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got 5000 and 1000"):
      grid(min_pixels=5000, max_pixels=1000)

  @parameterized.parameters(
    (dict(), "prompts and messages: give one"),
    (dict(prompts=["a"], messages=[[]]), "prompts and messages: give one"),
    (dict(prompts="a"), "prompts: got 'a', must be a list"),
    (dict(prompts=["a"], images=[[], []]), "images: got pictures for 2 prompts, there are 1"),
    (
      dict(messages=[[{"role": "user", "content": "a"}]], images=[[np.zeros([64, 64, 3], np.uint8)]]),
      "prompt 0 has 1 pictures, its text has 0 places",
    ),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      self.processor(**arguments)

  def test_decode(self):
    tokens = self.processor.tokenizer("red<|im_end|>")["input_ids"]
    self.assertEqual(self.processor.decode([tokens + tokens], [len(tokens)]), ["red"])


class PictureTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def refused(self, picture, message):
    with self.assertRaisesRegex(ValueError, message):
      processor_lib.open_picture(picture)

  def test_files_that_are_no_pictures(self):
    self.refused(str(self.directory / "none.png"), "none.png does not exist")
    text = self.directory / "text.png"
    text.write_text("not a picture")
    self.refused(text, "text.png is not a picture")
    self.refused(self.directory, "images: ")

  def test_truncated(self):
    noise = np.random.default_rng(0).integers(0, 255, [64, 64, 3], np.uint8)
    for name in ("a.png", "a.jpg"):
      path = self.directory / name
      Image.fromarray(noise).save(path)
      path.write_bytes(path.read_bytes()[:-2000])
      self.refused(path, f"{name} cannot be read, it may be truncated")

  def test_sizes(self):
    self.refused(np.zeros([0, 5, 3], np.uint8), "the picture is 5 x 0 pixels, must have at least one")
    self.refused(Image.new("1", (20_000, 10_000)), "20000 x 10000 pixels, must have 1 to 100,000,000")
    huge = self.directory / "huge.png"
    Image.new("1", (20_000, 10_000)).save(huge)
    self.refused(huge, "huge.png .*must have 1 to 100,000,000")

  def test_types(self):
    self.refused(np.zeros([5, 5, 3], np.float32), "got a float32 array of shape .5, 5, 3., must be uint8")
    self.refused(np.zeros([5, 5], np.uint8), "must be uint8 .H, W, 3.")
    self.refused(3, "got int, must be a PIL image, a uint8 array or a path")

  def test_modes_become_rgb(self):
    for mode in ("L", "P", "RGBA", "1", "CMYK"):
      self.assertEqual(processor_lib.open_picture(Image.new(mode, (8, 8))).mode, "RGB")


if __name__ == "__main__":
  absltest.main()
