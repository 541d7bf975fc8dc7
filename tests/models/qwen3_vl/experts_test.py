"""Qwen3-VL with experts: against transformers' torch model in float32, in NumPy, and from files of both kinds."""

import json
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from safetensors.numpy import load_file
from safetensors.numpy import save_file

from experiments.speed import flops
import models
from models import experts
from models import registry
from tests.reference import checks
from tests.reference import parity
from tests.reference import qwen3_vl
from tests.reference import qwen3_vl_moe as reference


def silu(x):
  return x / (1 + np.exp(-x))


class ParityTest(parity.make_test(reference)):
  def test_pruned(self):
    model, params = checks.load(reference, "tied")
    importance = checks.uneven_importance(model.config.text.num_attention_heads)
    visual = (reference.IMAGE, reference.VIDEO)
    query = dict(visual_ids=visual, vision_end_id=reference.VISION_END, im_end_id=reference.IM_END)
    prompts = ("images_and_video", "text_only", "no_end")
    checks.check_pruning(model, params, reference.batch(prompts), importance, "l2", 6, query, keep_ratio=0.2)


class ExpertsTest(absltest.TestCase):
  def test_token_by_token(self):
    """Every token through its experts alone; one of five experts is chosen by nobody, and the last two are elsewhere."""
    rng = np.random.default_rng(0)
    x, shares = rng.standard_normal([2, 6, 8], np.float32), rng.random([2, 6, 2], np.float32)
    chosen = rng.permuted(np.tile([0, 2, 3, 4], [12, 1]), axis=1)[:, :2].reshape(2, 6, 2).astype(np.int32)
    gate_up, down = rng.standard_normal([5, 8, 6], np.float32), rng.standard_normal([5, 3, 8], np.float32)
    expected = np.zeros([2, *x.shape], np.float32)
    for row, token, slot in np.ndindex(chosen.shape):
      number = chosen[row, token, slot]
      gate, up = np.split(x[row, token] @ gate_up[number], 2)
      expected[int(number > 2), row, token] += shares[row, token, slot] * ((silu(gate) * up) @ down[number])
    parts = [
      experts.add_experts(x, shares, chosen, gate_up[first:end], down[first:end], first) for first, end in ((0, 3), (3, 5))
    ]
    np.testing.assert_allclose(parts, expected, atol=1e-4)

  def test_work(self):
    """A token passes its own experts and the router; a decoding step may read the kernels of all experts."""
    text = checks.load(reference, "untied")[0].config.text
    attention = 64 * 16 * (2 * 8 + 2 * 2)
    layer = attention + 64 * 8 + 2 * 3 * 64 * 40
    whole = 3 * (2 * 10 * layer + 2 * 10**2 * 128)
    last = 2 * 9 * 2 * 64 * 32 + 2 * layer + 4 * 10 * 128
    self.assertEqual(flops.language_prefill(text, 10), whole + last + 2 * 64 * 160)
    kernels = 4 * (attention + 64 * 8 + 8 * 3 * 64 * 40) + 64 * 160
    self.assertEqual(flops.decode_bytes(text, 0, 1, 1), kernels)


class FilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = holder.name

  def test_single_and_stacked_kernels(self):
    reference.write_checkpoint(self.directory, "untied", hub_style=True)
    qwen3_vl.tiny.split(self.directory)
    model, params = models.load_model(self.directory)
    stacked_model, stacked = checks.load(reference, "untied")
    self.assertEqual(model, stacked_model)
    jax.tree.map(np.testing.assert_array_equal, params, stacked)

  def test_a_missing_part(self):
    reference.write_checkpoint(self.directory, "untied", hub_style=True)
    path = f"{self.directory}/model.safetensors"
    tensors = load_file(path)
    del tensors["model.language_model.layers.1.mlp.experts.3.up_proj.weight"]
    save_file(tensors, path)
    message = r"missing: model.language_model.layers.1.mlp.experts.gate_up_proj\n(.*\n)*.*unexpected: .*experts.0.gate_proj"
    with self.assertRaisesRegex(ValueError, message):
      models.load_model(self.directory)

  @parameterized.parameters(
    (dict(mlp_only_layers=[1]), r"text_config.mlp_only_layers is \[1\]"),
    (dict(decoder_sparse_step=2), "text_config.decoder_sparse_step is 2"),
    (dict(num_experts_per_tok=9), "text_config.num_experts_per_tok is 9, must be from 1 to the 8 experts"),
  )
  def test_refused(self, changes, message):
    config = json.loads(json.dumps(reference.CONFIGS["untied"]))
    config["text_config"].update(changes)
    qwen3_vl.tiny.write(self.directory, config, {})
    with self.assertRaisesRegex(ValueError, message):
      registry.describe(self.directory)


if __name__ == "__main__":
  absltest.main()
