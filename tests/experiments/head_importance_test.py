"""Estimates against plain loops, and runs that are killed and started again."""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from experiments import data
from experiments import digits
from experiments import embedded
from experiments import estimators
from hawk_jax import importance
from models import generation
from models import load_model
from models import load_processor

MODEL = str(embedded.DIRECTORY / "qwen2_5_vl")
ROOT = pathlib.Path(__file__).parents[2]


class EstimatorsTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = load_model(MODEL)
    cls.processor = load_processor(MODEL)
    cls.examples = data.from_digits("calibration", digits.KINDS, 1)
    cls.batch = data.make_batch(cls.model, cls.params, cls.processor, cls.examples)

  def without(self, head, layers):
    """Parameters whose output projection ignores a head: ablation with no gate anywhere."""
    params = jax.tree.map(np.array, self.params)
    size = self.model.config.text.head_dim
    for layer in layers:
      params["language_model"][f"layers_{layer}"]["self_attn"]["o_proj"]["kernel"][head * size:(head + 1) * size] = 0
    return params

  def log_likelihoods(self, params):
    """By decoding with the logits kept, forced along the reference: one example and one token at a time."""
    found = []
    for row, example in enumerate(self.examples):
      inputs = self.model.pack(**self.processor(images=[[example.picture]], prompts=[example.question]))
      tokens = [token for token in self.batch.answers[row].tolist() if token >= 0]
      total, ids = 0.0, np.asarray(self.processor(images=[[example.picture]], prompts=[example.question])["input_ids"])
      for token in tokens:
        arrays = self.processor(images=[[example.picture]], prompts=[example.question])
        arrays["input_ids"], arrays["attention_mask"] = ids, np.ones_like(ids)
        inputs = self.model.pack(**arrays)
        out = generation.generate(self.model, params, inputs, max_new_tokens=1, return_logits=True)
        total += float(jax.nn.log_softmax(out.logits[0, 0])[token])
        ids = np.concatenate([ids, [[token]]], axis=1)
      found.append(total)
    return np.asarray(found)

  @parameterized.parameters(("first_layer", 3), ("all_layers", 6))
  def test_ablation_equals_weights_without_the_head(self, scope, head):
    settings = estimators.Settings(scope=scope, metric="log_likelihood")
    drops = estimators.ablation(self.model, self.params, self.batch, settings)
    self.assertEqual(drops.shape, (8, len(self.examples)))
    layers = range(1 if scope == "first_layer" else self.model.config.text.num_hidden_layers)
    expected = self.log_likelihoods(self.params) - self.log_likelihoods(self.without(head, layers))
    np.testing.assert_allclose(drops[head], expected, atol=2e-4)

  def test_heads_at_once_changes_nothing(self):
    every, few = (estimators.ablation(self.model, self.params, self.batch, estimators.Settings(
        metric="log_likelihood", heads_at_once=count)) for count in (64, 2))
    np.testing.assert_allclose(every, few, atol=1e-5)

  def test_gradient_is_the_slope(self):
    slope = estimators.gradient(self.model, self.params, self.batch, estimators.Settings())
    arrays, size = (self.batch.prompt, self.batch.features, self.batch.answers), 1e-2
    likelihood = jax.jit(lambda gate: estimators._verdict(
        self.params, arrays, gate, model=self.model, settings=estimators.Settings()).log_likelihood)
    for head in (0, 7):
      step = size * jnp.eye(8)[head]
      difference = (likelihood(jnp.ones([5, 8]) + step) - likelihood(jnp.ones([5, 8]) - step)) / (2 * size)
      np.testing.assert_allclose(slope[head], difference, atol=1e-2, rtol=2e-2)

  def test_attention_mass_is_a_share(self):
    mass = estimators.attention_mass(self.model, self.params, self.batch, estimators.Settings())
    self.assertEqual(mass.shape, (8, len(self.examples)))
    self.assertTrue(((mass > 0) & (mass < 1)).all())

  def test_mask_visual_hides_the_picture_from_the_head(self):
    zero, masked = (estimators.ablation(self.model, self.params, self.batch, estimators.Settings(
        mode=mode, metric="log_likelihood")) for mode in ("zero_output", "mask_visual"))
    self.assertGreater(np.abs(zero - masked).max(), 1e-3)


class RunsTest(parameterized.TestCase):
  """The apps as a user starts them."""

  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def start(self, app, name, **settings):
    arguments = [f"--{flag}={value}" for flag, value in settings.items()]
    return subprocess.Popen(
        [sys.executable, "-m", f"experiments.{app}", f"--compilation_cache={self.directory / 'cache'}",
         f"--output_dir={self.directory / name}", *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

  def finish(self, app, name, **settings):
    process = self.start(app, name, **settings)
    _, errors = process.communicate()
    self.assertEqual(process.returncode, 0, errors)
    return {path.name: path.read_bytes() for path in (self.directory / name).iterdir() if path.suffix != ".png"}

  def refused(self, app, name, **settings):
    process = self.start(app, name, **settings)
    _, errors = process.communicate()
    self.assertEqual(process.returncode, 2, errors)
    self.assertNotIn("Traceback", errors)
    return errors

  @parameterized.parameters(
      ("head_importance", "batches.jsonl", dict(estimator="ablation", examples=2, batch_size=2)),
      ("head_importance", "steps.jsonl", dict(estimator="learned", examples=1, batch_size=5, steps=12)),
      ("compare", "batches.jsonl", dict(questions=15, batch_size=3, keep_ratio=0.1, selector="random", heads=False)))
  def test_killed_and_started_again_equals_undisturbed(self, app, records, settings):
    whole = self.finish(app, "whole", **settings)
    process = self.start(app, "killed", **settings)
    path = self.directory / "killed" / records
    while process.poll() is None and not (path.exists() and path.read_bytes().count(b"\n") > 2):
      time.sleep(0.02)
    process.kill()
    process.communicate()
    self.assertEqual(process.returncode, -9)
    self.assertLess(path.read_bytes().count(b"\n"), whole[records].count(b"\n"))
    self.assertEqual(self.finish(app, "killed", **settings), whole)
    self.assertIn("is of a run with other batch_size", self.refused(app, "killed", **{**settings, "batch_size": 4}))

  def test_calibration_pictures_are_not_test_pictures(self):
    path = self.directory / "w.json"
    digest = data.from_digits("test", digits.KINDS, 1)[0].digest
    importance.save(str(path), np.ones(8) / 8, pictures=[digest])
    self.assertIn("was estimated on 1 of the test pictures",
                  self.refused("compare", "out", questions=5, importance=f"mine={path}"))

  @parameterized.parameters(
      (dict(estimator="gradients"), "estimator: got 'gradients', allowed are ablation"),
      (dict(estimator="one_hot:8"), "one_hot:8, the model's first layer has heads 0 to 7"))
  def test_bad_estimators(self, settings, message):
    self.assertIn(message, self.refused("head_importance", "bad", **settings))


class DataTest(absltest.TestCase):

  def test_bad_lines(self):
    with tempfile.TemporaryDirectory() as directory:
      bad = pathlib.Path(directory) / "bad.jsonl"
      bad.write_text(json.dumps({"image": "none.png", "question": "?", "answer": "1", "dataset": "d"}) + "\n")
      with self.assertRaisesRegex(ValueError, "data: .*bad.jsonl line 1: .*none.png does not exist"):
        data.from_jsonl(str(bad))
      bad.write_text("")
      with self.assertRaisesRegex(ValueError, "bad.jsonl is empty"):
        data.from_jsonl(str(bad))


if __name__ == "__main__":
  absltest.main()
