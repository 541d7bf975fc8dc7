"""The app, as a user starts it."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl.testing import absltest
import numpy as np
from PIL import Image

from experiments import embedded

ROOT = pathlib.Path(__file__).parents[2]


def start(*arguments):
  environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
  return subprocess.run([sys.executable, "-m", "experiments.generate", "--compilation_cache=", *arguments], cwd=ROOT,
                        env=environment, capture_output=True, text=True, check=False)


class GenerateTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def test_answers_and_shows_what_was_kept(self):
    result = start("--keep_ratio=0.2", f"--output_dir={self.directory}")
    self.assertEqual(result.returncode, 0, result.stderr)
    report = json.loads((self.directory / "result.json").read_text())
    self.assertEqual(report["answer"], "0")
    self.assertIn("answer          0\n", result.stdout)
    self.assertEqual((report["visual_tokens"], report["kept_visual_tokens"]), (144, 29))
    self.assertEqual(report["prompt_tokens"] - report["kept_prompt_tokens"], 144 - 29)
    self.assertLen(report["kept_positions"], report["kept_prompt_tokens"])
    self.assertEqual(set(report["seconds"]), {"load", "compile", "vision", "prefill", "decode"})
    self.assertGreater(report["kv_cache_bytes"], 0)
    picture = np.asarray(Image.open(self.directory / "kept_tokens.png").convert("RGB"))
    self.assertGreater(len(np.unique(picture.reshape(-1, 3), axis=0)), 100)

  def refused(self, *arguments):
    result = start(*arguments)
    self.assertNotEqual(result.returncode, 0)
    self.assertNotIn("Traceback", result.stderr)
    return result.stderr

  def test_output_directory_is_tried_before_the_work(self):
    file = self.directory / "file"
    file.touch()
    # The model does not exist either: the first complaint shows what is looked at first.
    message = self.refused(f"--output_dir={file}", "--model=/no/such/model")
    self.assertIn("error: output_dir: cannot write to", message)

  def test_not_a_picture(self):
    message = self.refused(f"--image={embedded.DIRECTORY / 'qwen2_5_vl' / 'config.json'}",
                           f"--output_dir={self.directory}")
    self.assertIn("config.json is not a picture Pillow can read", message)

  def test_both_keep_flags(self):
    message = self.refused("--keep_ratio=0.5", "--keep_count=3", f"--output_dir={self.directory}")
    self.assertIn("keep_ratio and keep_count: give one of them", message)

  def test_cdpruner_without_clip(self):
    message = self.refused("--selector=cdpruner", "--model=/no/such/model", f"--output_dir={self.directory}")
    self.assertIn("error: clip: the selector cdpruner needs a CLIP checkpoint", message)


if __name__ == "__main__":
  absltest.main()
