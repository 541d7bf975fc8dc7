"""Video files to patches, as transformers' video processor samples and cuts them (tests/reference/video.safetensors)."""

import contextlib
import json
import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import av
import numpy as np
from safetensors.numpy import load_file

from models.inputs import video
from models.qwen2_5_vl.processor import Processor
from tests.reference import video as reference

GOLDENS = load_file(reference.GOLDENS)
LEVEL = 1 / 255 / 0.26  # of a normalized pixel


class SamplingTest(parameterized.TestCase):
  @parameterized.parameters(*range(len(reference.SAMPLINGS)))
  def test_same_frames(self, number):
    np.testing.assert_array_equal(video.sample(*reference.SAMPLINGS[number]), GOLDENS[f"sampling/{number}"])

  def test_one_frame(self):
    self.assertEqual(video.sample(1, 25.0, 2.0, 64).tolist(), [0])

  @parameterized.parameters(
    ((10, 25.0, 0.0, 64), "fps: got 0.0, must be positive"),
    ((10, 25.0, float("nan"), 64), "fps: got nan"),
    ((10, 25.0, 2.0, 1), "max_frames: got 1, must be at least 2"),
    ((0, 25.0, 2.0, 64), "the video has no frame"),
  )
  def test_refused(self, arguments, message):
    with self.assertRaisesRegex(ValueError, message):
      video.sample(*arguments)


class FilesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    (cls.directory / "preprocessor_config.json").write_text(
      json.dumps(
        {
          "image_processor_type": "Qwen2VLImageProcessor",
          "patch_size": reference.PATCH,
          "merge_size": reference.MERGE,
          "temporal_patch_size": reference.DEEP,
        }
      )
    )
    tokenizer = types.SimpleNamespace(convert_ids_to_tokens={1: "<i>", 2: "<v>"}.get)
    cls.processor = Processor(cls.directory, {"image_token_id": 1, "video_token_id": 2}, tokenizer)

  @parameterized.parameters(*reference.CLIPS)
  def test_patches(self, name):
    total, _, _, rate, fps, most, low, high = reference.CLIPS[name]
    at = video.sample(total, rate, fps, most)
    clip = video.Video(reference.frames(name)[at], tuple(at / rate), total / rate / len(at))
    media = self.processor([[clip]], low, high)
    arrays = media.arrays
    np.testing.assert_array_equal(arrays["video_grid_thw"], GOLDENS[f"{name}/grid"])
    np.testing.assert_allclose(clip.times, GOLDENS[f"{name}/times"], atol=1e-6)
    np.testing.assert_allclose(arrays["second_per_grid_ts"], [GOLDENS[f"{name}/second_per_grid"]])
    # Two implementations of bicubic resizing, both to whole levels.
    np.testing.assert_allclose(
      arrays["pixel_values_videos"][:: reference.ROWS], GOLDENS[f"{name}/patches"], atol=1.5 * LEVEL
    )
    self.assertEqual(media.video_texts, ["<v>" * (int(GOLDENS[f"{name}/grid"].prod()) // reference.MERGE**2)])

  @parameterized.parameters("mp4", "avi", "webm")
  def test_files(self, suffix):
    frames, path = reference.frames("digits"), self.directory / f"clip.{suffix}"
    video.write(path, frames, 8)
    self.assertEqual(video.probe(path), video.Info(24, 8.0, 192, 192))
    clip = video.read(path, fps=2.0, max_frames=64)
    np.testing.assert_allclose(clip.times, GOLDENS["digits/times"], atol=1e-6)
    self.assertEqual(clip.interval, 0.5)
    off = np.abs(clip.frames.astype(float) - frames[GOLDENS_AT]).mean()
    self.assertLess(off, 6)
    self.assertGreater(np.abs(frames[GOLDENS_AT].astype(float) - frames[GOLDENS_AT + 1]).mean(), 2 * off)
    arrays = self.processor([[clip]], 1024, 262_144).arrays
    np.testing.assert_array_equal(arrays["video_grid_thw"], GOLDENS["digits/grid"])

  def test_a_file_is_the_same_every_time(self):
    for name in ("one.mp4", "two.mp4"):
      video.write(self.directory / name, reference.frames("odd_size")[:, :64, :64], 8)
    self.assertEqual((self.directory / "one.mp4").read_bytes(), (self.directory / "two.mp4").read_bytes())

  def test_refused(self):
    whole = self.directory / "whole.mp4"
    video.write(whole, reference.frames("digits"), 8)
    cut, text, silent = (self.directory / name for name in ("cut.mp4", "text.mp4", "sound.wav"))
    cut.write_bytes(whole.read_bytes()[:-400])
    text.write_text("not a video")
    with av.open(str(silent), "w") as container:
      sound = av.AudioFrame.from_ndarray(np.zeros([1, 800], np.int16), format="s16", layout="mono")
      sound.sample_rate = 8000
      container.mux(container.add_stream("pcm_s16le", rate=8000).encode(sound))
    for path, message in (
      (self.directory / "none.mp4", "videos: there is no file .*none.mp4"),
      (cut, "cut.mp4 is not a video"),
      (text, "text.mp4 is not a video"),
      (silent, "sound.wav has no video stream"),
    ):
      with self.assertRaisesRegex(ValueError, message):
        video.read(path)

  @parameterized.parameters(
    ("#EXTM3U\n#EXTINF:9,\nwhole.mp4\n#EXT-X-ENDLIST\n", "list.m3u8"),
    ("ffconcat version 1.0\nfile whole.mp4\n", "list.mp4"),
  )
  def test_lists_of_files_are_not_followed(self, content, name):
    video.write(self.directory / "whole.mp4", reference.frames("digits"), 8)
    (self.directory / name).write_text(content)
    with self.assertRaisesRegex(ValueError, f"{name} is not a video FFmpeg can read"):
      video.read(self.directory / name)

  def test_arguments(self):
    with self.assertRaisesRegex(ValueError, "videos: got None, must be the path of a file"):
      video.read(None)
    with self.assertRaisesRegex(ValueError, "fps: got 'a', must be positive and finite"):
      video.sample(9, 1.0, "a", 8)
    with self.assertRaisesRegex(ValueError, "max_frames: got 1.5, must be a whole number"):
      video.sample(9, 1.0, 2.0, 1.5)
    for frames, message in (
      (np.zeros([4, 8, 8], np.uint8), r"got uint8 frames of shape \(4, 8, 8\), must be uint8 \[T, H, W, 3\]"),
      (np.zeros([4, 8, 8, 3]), "got float64 frames"),
      (np.zeros([0, 8, 8, 3], np.uint8), "got frames of shape .*, must be at least one"),
      ("frames.mp4", "got str frames"),
    ):
      with self.assertRaisesRegex(ValueError, f"videos: {message}"):
        video.Video(frames, (), 1.0)
    with self.assertRaisesRegex(ValueError, "videos: interval: got nan, must be 0 or more seconds"):
      video.Video(np.zeros([4, 8, 8, 3], np.uint8), (0.0,) * 4, float("nan"))

  def test_too_many_pixels(self):
    path = self.directory / "large.mp4"
    video.write(path, [np.zeros([64, 64, 3], np.uint8)] * 4, 2)
    with mock.patch.object(video, "_MOST_PIXELS", 10_000):
      with self.assertRaisesRegex(ValueError, "has 4 sampled frames of 64 x 64, 16,384 pixels; .* lower max_frames"):
        video.read(path)
    with mock.patch.object(video, "MAX_PIXELS", 1000):
      with self.assertRaisesRegex(ValueError, "large.mp4 is 64 x 64 pixels, must have 1 to 1,000"):
        video.read(path)

  def test_a_video_without_frames(self):
    path = self.directory / "empty.avi"
    with av.open(str(path), "w") as container:
      stream = container.add_stream("mpeg4", rate=8)
      stream.width = stream.height = 64
      container.start_encoding()
    with self.assertRaisesRegex(ValueError, "empty.avi (has no frame|is not a video)"):
      video.read(path)

  def test_a_video_without_a_frame_rate(self):
    stream = types.SimpleNamespace(frames=3, average_rate=None, guessed_rate=None, width=8, height=8)
    with (
      mock.patch.object(video, "_opened", lambda path: contextlib.nullcontext((None, stream))),
      self.assertRaisesRegex(ValueError, "videos: clip.mp4 does not say how many frames per second it has"),
    ):
      video.read("clip.mp4")


GOLDENS_AT = GOLDENS["sampling/" + str(reference.SAMPLINGS.index((24, 8.0, 2.0, 64)))]

if __name__ == "__main__":
  absltest.main()
