"""Pruned models as harnesses use them; the adapters are tested where the harnesses are installed."""

import importlib
import importlib.util
import types
import unittest

from absl.testing import absltest
from absl.testing import parameterized

from experiments.digits import embedded
from experiments.evaluation.harness.pruned_model import PrunedModel

PICTURE = str(embedded.DIRECTORY / "picture.png")
SETTINGS = dict(model=str(embedded.DIRECTORY / "qwen2_5_vl"), keep_ratio=0.2, max_new_tokens=4)
CLIP = str(embedded.DIRECTORY.parent / "benchmark_files" / "digits_video" / "00.mp4")
QUESTION = [{"type": "image", "value": PICTURE}, {"type": "text", "value": "Which digit is red?"}]


def installed(name):
  return unittest.skipUnless(importlib.util.find_spec(name), f"{name} is not installed")


class PrunedModelTest(parameterized.TestCase):
  def test_answers(self):
    pruned = PrunedModel(**SETTINGS)
    self.assertEqual(pruned.answer([QUESTION, QUESTION]), ["0", "0"])
    self.assertLen(pruned.answer([[{"type": "video", "value": CLIP}, QUESTION[1]]]), 1)

  @parameterized.parameters(
    (dict(selector="hawks"), "selector: got 'hawks'"),
    (dict(keep_ratio=2.0), "keep_ratio: got 2.0"),
    (dict(dtype="float8"), "dtype: got 'float8'"),
  )
  def test_refused(self, settings, message):
    with self.assertRaisesRegex(ValueError, message):
      PrunedModel(**SETTINGS | settings).answer([QUESTION])


class AdaptersTest(absltest.TestCase):
  @installed("vlmeval")
  def test_vlmevalkit(self):
    from experiments.evaluation.harness import vlmevalkit

    self.assertEqual(vlmevalkit.Hawk(**SETTINGS).generate([dict(part) for part in QUESTION], dataset="x"), "0")

  @installed("lmms_eval")
  def test_lmms(self):
    from experiments.evaluation.harness import lmms

    model = lmms.Hawk(batch_size=2, device="cpu", **SETTINGS)
    model.task_dict = {"t": {"test": [PICTURE, PICTURE]}}
    request = lambda number, **settings: types.SimpleNamespace(
      args=("Which digit is red?", settings, lambda picture: [picture], number, "t", "test")
    )
    requests = [request(0, max_new_tokens=4), request(1, max_new_tokens=2, until=["0"]), request(1, max_new_tokens=4)]
    self.assertEqual(model.generate_until(requests), ["0", "", "0"])
    with self.assertRaisesRegex(ValueError, "do_sample: t asks for sampled answers"):
      model.generate_until([request(0, do_sample=True)])

  def test_one_line_where_a_harness_is_missing(self):
    for name, package in (("vlmevalkit", "vlmeval"), ("lmms", "lmms_eval")):
      if not importlib.util.find_spec(package):
        with self.assertRaisesRegex(SystemExit, f"error: No module named '{package}'.*requirements-harness.txt"):
          importlib.import_module(f"experiments.evaluation.harness.{name}")


if __name__ == "__main__":
  absltest.main()
