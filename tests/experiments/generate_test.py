"""The command that answers one question: its answer, its files, and what it refuses before the work."""

import contextlib
import io
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np
from PIL import Image

from experiments import generate
from experiments.digits import embedded
from models import registry
from models.checkpoints import hf
from models.checkpoints import params as params_lib
from tests.reference import qwen3_vl


class GenerateTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def run_command(self, **settings):
    """The report, and what is printed."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
      report = generate.run(generate.Settings(output_dir=str(self.directory), **settings))
    return report, printed.getvalue()

  def test_answers_and_shows_what_was_kept(self):
    returned, printed = self.run_command(keep_ratio=0.2)
    report = json.loads((self.directory / "result.json").read_text())
    self.assertEqual(report, returned)
    self.assertEqual(report["answer"], "0")
    self.assertIn("answer          0\n", printed)
    self.assertEqual((report["visual_tokens"], report["kept_visual_tokens"]), (144, 29))
    self.assertEqual(report["prompt_tokens"] - report["kept_prompt_tokens"], 144 - 29)
    self.assertLen(report["kept_positions"], report["kept_prompt_tokens"])
    self.assertEqual(set(report["seconds"]), {"load", "compile", "vision", "prefill", "decode"})
    self.assertGreater(report["kv_cache_bytes"], 0)
    picture = np.asarray(Image.open(self.directory / "kept_tokens.png").convert("RGB"))
    self.assertGreater(len(np.unique(picture.reshape(-1, 3), axis=0)), 100)

  def test_without_a_picture(self):
    report, _ = self.run_command(image=("",), max_new_tokens=4)
    self.assertEqual((report["images"], report["visual_tokens"]), ([], 0))
    self.assertEqual([path.name for path in self.directory.iterdir()], ["result.json"])

  def test_qwen3_vl(self):
    """Two pictures through another family's processor."""
    qwen3_vl.write_processor(self.directory)
    _, model = registry.describe(str(self.directory))
    hf.save(self.directory, model, params_lib.init(model, scale=0.3))
    pictures = [self.directory / name for name in ("one.png", "two.png")]
    for path, size in zip(pictures, ((96, 128), (160, 64))):
      Image.open(embedded.DIRECTORY / "picture.png").resize(size).save(path)
    report, _ = self.run_command(
      model=str(self.directory), image=tuple(map(str, pictures)), keep_ratio=0.4, max_new_tokens=3, dtype="float32"
    )
    self.assertEqual((report["visual_tokens"], report["kept_visual_tokens"]), (3 * 4 + 2 * 5, 9))
    self.assertTrue((self.directory / "kept_tokens.png").is_file())

  def refused(self, message, **settings):
    """Checks the message, and that no weights were read."""
    with mock.patch.object(registry, "load_params") as load_params, self.assertRaisesRegex(ValueError, message):
      generate.run(generate.Settings(**{"output_dir": str(self.directory), **settings}))
    load_params.assert_not_called()

  def test_output_directory_is_tried_before_the_work(self):
    file = self.directory / "file"
    file.touch()
    # The model does not exist either: the first complaint shows what is looked at first.
    self.refused("output_dir: cannot write to", output_dir=str(file), model="/no/such/model")

  def test_not_a_picture(self):
    self.refused(
      "config.json is not a picture Pillow can read", image=(str(embedded.DIRECTORY / "qwen2_5_vl" / "config.json"),)
    )

  def test_both_keep_flags(self):
    self.refused("keep_ratio and keep_count: give one of them", keep_ratio=0.5, keep_count=3)

  def test_cdpruner_without_clip(self):
    self.refused("^clip: the selector cdpruner needs a CLIP checkpoint", selector="cdpruner", model="/no/such/model")

  def test_what_does_not_fit_the_model(self):
    self.refused("head_importance: ", head_importance="preset:qwen2.5-vl-7b")
    self.refused("max_new_tokens: got 9000", max_new_tokens=9000)


if __name__ == "__main__":
  absltest.main()
