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
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

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

  def test_names_the_rule_and_saves_the_scores(self):
    report, printed = self.run_command(keep_ratio=0.1, selector="hawk+mmr", normalization="minmax", rounding="floor")
    self.assertEqual(report["rule"], "hawk+mmr, HAWK scores, minmax normalization")
    self.assertIn("14 of 144 kept by hawk+mmr", printed)
    saved = np.load(self.directory / "scores.npz")
    self.assertEqual((saved["fused"].shape, saved["heads"].shape, saved["head_importance"].shape), ((144,), (8, 144), (8,)))
    self.assertEqual((saved["kept"].sum(), str(saved["rule"])), (14, report["rule"]))
    np.testing.assert_array_equal(saved["order"][saved["kept"]], np.intersect1d(saved["order"], report["kept_positions"]))
    self.assertEqual(saved["views"].tolist(), [[0, 12, 12, 0]])
    heads = saved["heads"] - saved["heads"].min(axis=1, keepdims=True)
    np.testing.assert_allclose(saved["fused"], (heads / heads.max(axis=1, keepdims=True)).mean(axis=0), atol=1e-5)

  def test_scores_of_heads_are_of_the_layer_that_scores(self):
    report, _ = self.run_command(keep_ratio=0.1, normalization="minmax", score_layer=1)
    self.assertEqual(report["rule"], "hawk, HAWK scores of decoder layer 1, minmax normalization")
    saved = np.load(self.directory / "scores.npz")
    heads = saved["heads"] - saved["heads"].min(axis=1, keepdims=True)
    np.testing.assert_allclose(saved["fused"], (heads / heads.max(axis=1, keepdims=True)).mean(axis=0), atol=1e-5)

  def test_settings_of_the_method(self):
    """A rule with a measure of the vision encoder, merging, and weights that follow from the question."""
    report, printed = self.run_command(keep_ratio=0.1, selector="scope", merge="nearest", max_new_tokens=2)
    self.assertEqual((report["rule"], report["kept_visual_tokens"]), ("scope, saliency scores", 15))
    uniform = np.load(self.directory / "scores.npz")["fused"]
    self.assertGreater(uniform.min(), 0)  # attention
    report, _ = self.run_command(
      keep_ratio=0.1, head_weights="mass", rope=True, score_layer=1, sink_filter=0.05, region_floor=0.5, max_new_tokens=2
    )
    self.assertEqual(report["kept_visual_tokens"], 15)

  def test_sampling_and_streaming(self):
    sampled = dict(keep_ratio=0.2, temperature=5.0, top_k=50, top_p=0.99, seed=3, max_new_tokens=6)
    report, _ = self.run_command(**sampled)
    streamed, printed = self.run_command(**sampled, stream=True)
    self.assertEqual(streamed["token_ids"], report["token_ids"])
    self.assertIn(f"answer          {report['answer']}\n", printed)
    self.assertNotEqual(self.run_command(keep_ratio=0.2, max_new_tokens=6)[0]["token_ids"], report["token_ids"])

  def test_messages(self):
    picture = {"type": "image_url", "image_url": {"url": str(embedded.DIRECTORY / "picture.png")}}
    ask = lambda text, *before: {"role": "user", "content": [*before, {"type": "text", "text": text}]}
    chat = [ask("Which digit is red?", picture), ask("Which digit is blue?"), {"role": "assistant", "content": "3"}]
    (self.directory / "chat.json").write_text(json.dumps([*chat, ask("Which digit is green?")]))
    report, printed = self.run_command(messages=str(self.directory / "chat.json"), keep_ratio=0.2)
    self.assertEqual([turn["prompt"] for turn in report["turns"]], ["Which digit is red?", "Which digit is green?"])
    self.assertEqual((report["turns"][0]["answer"], report["turns"][0]["kept_visual_tokens"]), ("0", 29))
    self.assertIn("vision", report["turns"][0]["seconds"])
    self.assertNotIn("vision", report["turns"][1]["seconds"])
    self.assertEqual(printed.count("29 of 144 kept"), 2)
    names = ["chat.json", "kept_tokens_1.png", "kept_tokens_2.png", "result.json", "scores_1.npz", "scores_2.npz"]
    self.assertEqual(sorted(path.name for path in self.directory.iterdir()), names)

  def test_video(self):
    clip = embedded.DIRECTORY.parent / "benchmark_files" / "digits_video" / "00.mp4"
    report, _ = self.run_command(video=(str(clip),), max_frames=4, keep_count=8, max_new_tokens=2)
    self.assertEqual((report["images"], report["kept_visual_tokens"]), ([str(clip)], 8))
    self.assertGreater(len(np.load(self.directory / "scores.npz")["views"]), 1)

  def test_without_a_picture(self):
    (self.directory / "kept_tokens.png").write_text("of an earlier question")
    report, _ = self.run_command(image=("",), max_new_tokens=4, prompt="What is $\\frac{1}{ $x^ ?")
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

  def test_messages_files(self):
    path = self.directory / "chat.json"
    for content, message in (
      ("{", "messages: cannot read .*chat.json"),
      ("3", "must hold a list of messages"),
      ('[{"role": "user"}]', "message 0: got .* must have a content"),
      ('[{"role": "system", "content": "a"}]', "has no user's message without an answer"),
      ('[{"role": "user", "content": [{"type": "image", "image": "no.png"}]}]', "no.png does not exist"),
    ):
      path.write_text(content)
      with self.subTest(message):
        self.refused(message, messages=str(path))
    self.refused("messages: holds the pictures and videos", messages=str(path), image=("a.png",))

  def test_a_directory_in_the_place_of_a_result(self):
    (self.directory / "kept_tokens.png").mkdir()
    self.refused("output_dir: .*kept_tokens.png is a directory", model="/no/such/model")

  def test_both_keep_flags(self):
    self.refused("keep_ratio and keep_count: give one of them", keep_ratio=0.5, keep_count=3)

  def test_cdpruner_without_clip(self):
    self.refused("^clip: the selector cdpruner needs a CLIP checkpoint", selector="cdpruner", model="/no/such/model")

  def test_what_does_not_fit_the_model(self):
    self.refused("head_importance: ", head_importance="preset:qwen2.5-vl-7b")
    self.refused("max_new_tokens: got 9000", max_new_tokens=9000)
    self.refused("prune_layer: got 99", selector="fastv", prune_layer=99)
    self.refused("temperature: got -1", temperature=-1.0)
    self.refused("videos: there is no file", video=("/no/such.mp4",))


if __name__ == "__main__":
  absltest.main()
