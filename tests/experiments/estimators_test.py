"""Estimators of head importance against a decoder in NumPy, head by head and prompt by prompt."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import data
from experiments import estimators
from models import generation
from models import teacher_forcing
from tests.reference import checks
from tests.reference import llava as reference
from tests.reference import numpy_decoder

ANSWERS = np.asarray([[17, 4, 60], [90, 33, -1]], np.int32)


class TinyTest(parameterized.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = checks.load(reference, "mistral")  # 8 query heads over 2 key heads
    arrays = reference.batch(("two", "one"))
    cls.inputs = cls.model.pack(**arrays)
    cls.features = generation.encode(cls.params, cls.inputs.vision, model=cls.model)
    cls.text = cls.model.config.text
    cls.rows = checks.merged(cls.model, cls.params, arrays)


class EstimatorsTest(TinyTest):

  def batch(self, answers=ANSWERS):
    return data.Batch(self.inputs.prompt, self.features, answers, ["a", "b"])

  def plain(self, number, answers=ANSWERS, **intervention):
    row, answer = self.rows[number], answers[number]
    answer = answer[answer >= 0]
    return numpy_decoder.judge(self.params, self.text, row.embeddings, row.positions[:, 0], answer, **intervention)

  def gates(self, head, scope, value=0.0):
    gates = np.ones([self.text.num_hidden_layers, self.text.num_attention_heads])
    gates[:1 if scope == "first_layer" else None, head] = value
    return gates

  def drops(self, scope, mode, part, answers):
    found = np.zeros([self.text.num_attention_heads, 2])
    for number, row in enumerate(self.rows):
      hidden = row.ids == reference.IMAGE if mode == "mask_visual" else None
      base = self.plain(number, answers)[part]
      for head in range(len(found)):
        found[head, number] = base - self.plain(number, answers, gates=self.gates(head, scope), hidden=hidden)[part]
    return found

  @parameterized.product(scope=["first_layer", "all_layers"], mode=["zero_output", "mask_visual"])
  def test_ablation_of_likelihood(self, scope, mode):
    settings = estimators.Settings(scope, mode, "log_likelihood")
    found = estimators.ablation(self.model, self.params, self.batch(), settings)
    expected = self.drops(scope, mode, 0, ANSWERS)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    self.assertGreater(np.abs(expected).max(), 0.01)

  def test_heads_at_once(self):
    settings = [estimators.Settings(metric="log_likelihood", heads_at_once=count) for count in (None, 4)]
    one, several = (estimators.ablation(self.model, self.params, self.batch(), chosen) for chosen in settings)
    np.testing.assert_allclose(one, several, atol=1e-5)

  def test_ablation_of_accuracy(self):
    # What the unpruned model answers is right until an ablation changes it.
    out = generation.generate(self.model, self.params, self.inputs, max_new_tokens=3)
    answers = np.asarray(out.tokens)
    found = estimators.ablation(self.model, self.params, self.batch(answers), estimators.Settings("all_layers"))
    np.testing.assert_array_equal(found, self.drops("all_layers", "zero_output", 1, answers))
    self.assertEqual({*found.ravel()}, {0.0, 1.0})

  def test_gradient_is_the_slope_at_the_gate(self):
    found = estimators.gradient(self.model, self.params, self.batch(), estimators.Settings())
    for head in range(self.text.num_attention_heads):
      for number in range(2):
        above, below = (self.plain(number, gates=self.gates(head, "first_layer", 1 + step))[0] for step in (1e-4, -1e-4))
        self.assertAlmostEqual(found[head, number], (above - below) / 2e-4, delta=2e-3)

  def test_attention_mass(self):
    found = estimators.attention_mass(self.model, self.params, self.batch(), estimators.Settings())
    for number, row in enumerate(self.rows):
      _, weights = numpy_decoder.run(self.params, self.text, row.embeddings, row.positions[:, 0])
      visual = row.ids == reference.IMAGE
      query = np.arange(len(row.ids)) > np.flatnonzero(visual)[-1]
      np.testing.assert_allclose(found[:, number], weights[:, query][..., visual].sum(-1).mean(-1), atol=1e-5)


class LearnTest(TinyTest):
  optimizer = optax.adam(0.1)

  def step(self, state, temperature, counts):
    return estimators.learn_step(state, self.params, self.inputs.prompt, self.features, ANSWERS, counts, temperature,
                                 model=self.model, optimizer=self.optimizer)

  def test_cold_relaxation_is_hard_selection(self):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)
    pruning = generation.plan_pruning(self.model, self.inputs.prompt, np.asarray(jax.nn.softmax(logits)), keep_ratio=0.25)
    self.assertEqual(pruning.counts.tolist(), [18, 9])
    _, loss = self.step((logits, self.optimizer.init(logits)), 1e-6, pruning.counts)

    @jax.jit
    def hard(params, features, pruning):
      apply, prompt = functools.partial(self.model.apply, {"params": params}), self.inputs.prompt
      prefill = apply(prompt, features, method="prefill", **generation.pruning_arguments(pruning))
      return apply(prompt, prefill, ANSWERS, method=teacher_forcing.judge).log_likelihood

    self.assertAlmostEqual(float(loss), -float(hard(self.params, self.features, pruning).mean()), delta=1e-4)

  def test_steps_lower_the_loss(self):
    logits = jnp.zeros(8)
    state, losses = (logits, self.optimizer.init(logits)), []
    for _ in range(15):
      state, loss = self.step(state, 0.5, np.asarray([18, 9], np.int32))
      losses.append(float(loss))
    self.assertLess(losses[-1], losses[0] - 1e-3)
    self.assertLess(max(np.diff(losses)), 1e-3)


if __name__ == "__main__":
  absltest.main()
