"""Pictures and videos of Qwen3-VL from files on disk to an answer, with transformers' rules (recorded in qwen3_vl.json)."""

import dataclasses
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np
from PIL import Image

import models
from models.checkpoints import hf
from models.checkpoints import params as params_lib
from models.inputs import video
from models.qwen3_vl import processor as processor_lib
from tests.reference import qwen3_vl as reference

RULES = json.loads(reference.RULES.read_text())


class ProcessorTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    reference.write_processor(cls.directory)
    cls.processor = models.load_processor(str(cls.directory))
    noise = np.random.default_rng(0)
    cls.picture = noise.integers(0, 255, [100, 150, 3], np.uint8)
    cls.frames = noise.integers(0, 255, [13, 64, 96, 3], np.uint8)

  @parameterized.parameters(*range(len(reference.SAMPLINGS)))
  def test_sampling(self, number):
    found = self.processor.media.sample(*reference.SAMPLINGS[number])
    self.assertEqual(found.tolist(), RULES["sampling"][number])

  @parameterized.parameters(*range(len(reference.SIZES)))
  def test_sizes(self, number):
    *shape, low, high = reference.SIZES[number]
    self.assertEqual(list(processor_lib.resized(shape, 32, 2, low, high)), RULES["sizes"][number])

  @parameterized.parameters(*range(len(reference.TEXTS)))
  def test_texts(self, number):
    indices, rate, grid = reference.TEXTS[number]
    clip = video.Video(np.zeros([len(indices), 4, 4, 3], np.uint8), tuple(np.asarray(indices) / rate), 1.0)
    self.assertEqual(self.processor.media.video_text(clip, np.asarray(grid)), RULES["texts"][number])

  @parameterized.parameters(
    (lambda clip: dataclasses.replace(clip, times=()), "got 0 times for 2 frames; the prompt says the time of every frame"),
    (lambda clip: video.Video(clip.frames[:1], (0.0,), 1.0), "got a video of 1 frames, must have at least 2"),
    (lambda clip: video.Video(np.zeros([2, 8, 2000, 3], np.uint8), (0.0, 1.0), 1.0), "at most 200 times as long as wide"),
  )
  def test_videos_that_are_refused(self, change, message):
    clip = video.Video(self.frames[:2], (0.0, 0.5), 0.5)
    with self.assertRaisesRegex(ValueError, f"videos: .*{message}"):
      self.processor(videos=[[change(clip)]], prompts=["?"])

  def test_settings_of_transformers_5(self):
    """One file for the whole processor."""
    with tempfile.TemporaryDirectory() as name:
      directory = pathlib.Path(name)
      reference.write_processor(directory)
      parts = {"image_processor": "preprocessor_config.json", "video_processor": "video_preprocessor_config.json"}
      content = {}
      for part, file in parts.items():
        content[part] = json.loads((directory / file).read_text())
        (directory / file).unlink()
      (directory / "processor_config.json").write_text(json.dumps(content))
      media = models.load_processor(name).media
    self.assertEqual(media.video_size, self.processor.media.video_size)
    self.assertEqual(media.limits(None, None), (4096, 65_536))

  def test_answers_about_files(self):
    """Pictures and a video through files, tokenizer and chat template."""
    pictures = [self.directory / "one.png", self.directory / "two.jpg"]
    for path, size in zip(pictures, ((100, 150), (70, 40))):
      Image.fromarray(self.picture).resize(size).save(path)
    video.write(self.directory / "clip.mp4", self.frames, 8)
    clip = self.processor.read_video(self.directory / "clip.mp4")
    self.assertEqual(clip.times, (0.0, 0.5, 1.0, 1.5))
    parts = [{"type": "image"}, {"type": "video"}, {"type": "image"}, {"type": "text", "text": "What moves?"}]
    batch = self.processor(images=[pictures], videos=[[clip]], messages=[[{"role": "user", "content": parts}]])
    text = self.processor.tokenizer.decode(batch["input_ids"][0])
    self.assertEqual(batch["image_grid_thw"].tolist(), [[1, 10, 6], [1, 4, 6]])
    self.assertEqual(batch["video_grid_thw"].tolist(), [[2, 4, 6]])
    between = lambda token, count: f"<|vision_start|>{f'<|{token}_pad|>' * count}<|vision_end|>"
    times = "".join(f"<{time} seconds>{between('video', 6)}" for time in ("0.2", "1.2"))
    self.assertEqual(
      text,
      f"<|im_start|>user\n{between('image', 15)}<|vision_start|>{times}<|vision_end|>{between('image', 6)}"
      "What moves?<|im_end|>\n<|im_start|>assistant\n",
    )
    self.assertBetween(np.abs(batch["pixel_values_videos"]).max(), 0.9, 1.0)

    _, model = models.registry.describe(str(self.directory))
    hf.save(self.directory, model, params_lib.init(model, scale=0.3))
    model, params = models.load_model(str(self.directory))
    inputs = model.pack(**batch)
    self.assertEqual(
      [(view.picture, view.rows, view.columns) for view in inputs.views[0]],
      [(0, 5, 3), (1, 2, 3), (2, 2, 3), (3, 2, 3)],
    )
    out = models.generate(model, params, inputs, keep_ratio=0.2, max_new_tokens=4, eos_token_ids=())
    kept = np.asarray(out.kept_positions)[0]
    visual = inputs.prompt.visual_order[0]
    self.assertEqual(np.isin(kept, visual[visual >= 0]).sum(), 7)
    query = inputs.prompt.text_tokens[0][inputs.prompt.query_mask[0]]
    self.assertEqual(self.processor.tokenizer.decode(query), "What moves?")
    self.assertLen(self.processor.decode(out.tokens, out.lengths), 1)


if __name__ == "__main__":
  absltest.main()
