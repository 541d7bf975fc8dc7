"""Pictures and chat text to arrays."""

import pathlib

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

from models import load_processor

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
    (dict(prompts=["a"], videos=[[], []]), "videos: got videos for 2 prompts, there are 1"),
    (
      dict(prompts=["a"], images=[Image.new("RGB", (9, 9))]),
      r"images: got Image for prompt 0, must be .*: images=\[\[...\]\]",
    ),
    (dict(prompts=["a"], images=Image.new("RGB", (9, 9))), "images: got Image, must be a list with a list for each prompt"),
    (dict(prompts=["a"], images=["a.png"]), "images: got str for prompt 0, must be a list of its images"),
    (dict(prompts=["a"], images=[[None]]), "images: picture 0 of prompt 0: got NoneType, must be a PIL image"),
    (dict(prompts=["a"], images=[["none.png"]]), "images: picture 0 of prompt 0: none.png does not exist"),
    (
      dict(prompts=["a"], videos=[["a.mp4"]]),
      "videos: video 0 of prompt 0: got str, must be a Video of models.inputs.video",
    ),
    (dict(prompts=[3]), "prompts: prompt 0: got 3, must be text"),
    (dict(prompts=["\ud800"]), "prompts: prompt 0: got .*, must be Unicode text"),
    (dict(messages="hello"), "messages: got 'hello', must be a list of at least one chat"),
    (dict(messages=["hello"]), "messages: prompt 0: got 'hello', must be a list of messages"),
    (dict(messages=[[{"content": "a"}]]), "messages: prompt 0: got the message .*, must have a role and a content"),
    (
      dict(messages=[[{"role": "user", "content": 3}]]),
      "messages: prompt 0: got the content 3, must be text or a list of parts",
    ),
    (dict(messages=[[{"role": "user", "content": [{"type": "audio"}]}]]), "with the types text, image, video"),
    (dict(prompts=["a"], min_pixels="a"), "min_pixels: got 'a', must be a whole number of at least 1"),
    (dict(prompts=["a"], max_pixels=1e300), r"max_pixels: got 1e\+300, must be a whole number of at least 1"),
    (dict(prompts=["a"], min_pixels=10**12), "min_pixels and max_pixels: got 1000000000000 and "),
    (
      dict(prompts=["a"], images=[[Image.new("RGB", (20_000, 2))]]),
      "images: picture 0 of prompt 0 is 20000 x 2 pixels, must be at most 200 times as long as wide",
    ),
    (
      dict(messages=[[{"role": "user", "content": "a"}]], images=[[np.zeros([64, 64, 3], np.uint8)]]),
      "prompt 0 has 1 pictures, its text has 0 places",
    ),
  )
  def test_bad_arguments(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      self.processor(**arguments)

  def test_number_that_python_does_not_print(self):
    with self.assertRaisesRegex(ValueError, "min_pixels and max_pixels: got a very large int and "):
      self.processor(prompts=["a"], min_pixels=10**5000)

  def test_decode(self):
    tokens = self.processor.tokenizer("red<|im_end|>")["input_ids"]
    self.assertEqual(self.processor.decode([tokens + tokens], [len(tokens)]), ["red"])

  @parameterized.parameters(
    ([["a"]], [1], "tokens: got <U1"),
    ([[1]], ["a"], "lengths: got <U1"),
    ([[-1]], [1], "tokens: from -1 to -1, must be token ids"),
    ([1], [1], r"tokens and lengths: got shapes \(1,\) and \(1,\)"),
  )
  def test_decode_refuses(self, tokens, lengths, message):
    with self.assertRaisesRegex(ValueError, message):
      self.processor.decode(tokens, lengths)


if __name__ == "__main__":
  absltest.main()
