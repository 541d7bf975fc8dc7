"""transformers' torch model as a baseline: shared weights, batches and the static cache. Runs where torch is installed."""

import json
import pathlib
import tempfile
import unittest

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from models import generate
from models import registry
from models.checkpoints import hf
from models.checkpoints import params as params_lib
from tests.reference import llava as llava_reference
from tests.reference import qwen2_5_vl as qwen_reference

try:
  from experiments.speed.transformers_baseline import Baseline
except ModuleNotFoundError:
  Baseline = None

STEPS = 3


@unittest.skipIf(Baseline is None, "torch is not installed")
class TransformersBaselineTest(parameterized.TestCase):
  @parameterized.parameters(("qwen2_5_vl", qwen_reference.CONFIGS["gqa"]), ("llava", llava_reference.CONFIGS["llama"]))
  def test_answers_are_ours(self, name, config):
    with tempfile.TemporaryDirectory() as holder:
      directory = pathlib.Path(holder) / name
      directory.mkdir()
      (directory / "config.json").write_text(json.dumps(config))
      model = registry.build(directory, config)
      params = params_lib.init(model)
      baseline = Baseline(directory, "float32", dict(hf.tensors(model, params)))
      arrays = model.synthetic_batch([(112, 112)] * 2, 12, np.random.default_rng(0))
      ours = generate(model, params, model.pack(**arrays), keep_ratio=0.5, max_new_tokens=STEPS + 1, return_logits=True)
      kept = np.stack([row[row >= 0] for row in np.asarray(ours.kept_positions)])
      for room in (None, kept.shape[1] + STEPS + 1):
        logits, tokens = baseline.answer(baseline.tensors(arrays), kept, STEPS, room)
        np.testing.assert_allclose(logits, ours.logits[:, 0], atol=1e-4)
        np.testing.assert_array_equal(tokens, ours.tokens)


if __name__ == "__main__":
  absltest.main()
