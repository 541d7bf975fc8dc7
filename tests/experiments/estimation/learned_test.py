"""Learned head importance: the relaxation against hard selection, and that steps lower the loss."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments.estimation import data
from experiments.estimation import learned
from hawk_jax.pruning import Pruning
from models import generation
from models import stages
from models import teacher_forcing
from tests.reference import checks
from tests.reference import llava as reference

ANSWERS = np.asarray([[17, 4, 60], [90, 33, -1]], np.int32)


class LearnedTest(parameterized.TestCase):
  optimizer = optax.adam(0.1)

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = checks.load(reference, "mistral")  # 8 query heads over 2 key heads
    cls.inputs = cls.model.pack(**reference.batch(("two", "one")))
    cls.features = generation.encode_pictures(cls.model, cls.params, cls.inputs)

  def step(self, state, temperature, counts, **settings):
    return learned.learn_step(
      state,
      self.params,
      self.inputs.prompt,
      self.features,
      ANSWERS,
      counts,
      temperature,
      model=self.model,
      optimizer=self.optimizer,
      settings=Pruning(**settings),
    )

  @parameterized.parameters(0, 1)
  def test_cold_relaxation_is_hard_selection(self, layer):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=8), jnp.float32)
    pruning = Pruning(keep_ratio=0.25, score_layer=layer)
    plan = generation.make_plan(self.model, self.inputs.prompt, pruning, np.asarray(jax.nn.softmax(logits)))
    self.assertEqual(plan.counts.tolist(), [18, 9])
    _, loss = self.step((logits, self.optimizer.init(logits)), 1e-6, plan.counts, score_layer=layer)

    @jax.jit
    def hard(params, prompt, features, plan):
      def call(module):
        return teacher_forcing.judge(module, prompt, stages.prefill(module, prompt, features, plan), ANSWERS)

      return self.model.apply({"params": params}, method=call).log_likelihood

    expected = hard(self.params, self.inputs.prompt, self.features, plan)
    self.assertAlmostEqual(float(loss), -float(expected.mean()), delta=1e-4)

  def test_steps_lower_the_loss(self):
    logits = jnp.zeros(8)
    state, losses = (logits, self.optimizer.init(logits)), []
    for _ in range(15):
      state, loss = self.step(state, 0.5, np.asarray([18, 9], np.int32))
      losses.append(float(loss))
    self.assertLess(losses[-1], losses[0] - 1e-3)
    self.assertLess(max(np.diff(losses)), 1e-3)

  def test_own_answers_end_at_the_end_token(self):
    out = generation.generate(self.model, self.params, self.inputs, max_new_tokens=3)
    tokens = np.asarray(out.tokens)
    end = int(tokens[0, 1])
    self.assertNotIn(end, tokens[1].tolist())
    processor = mock.Mock(eos_token_ids=(end,))
    batch = data.Batch(self.inputs.prompt, self.features, ANSWERS, ["a", "b"])
    batches = data.Batches(self.model, self.params, processor, [], size=2)
    np.testing.assert_array_equal(learned.own_answers(batches, batch), [[*tokens[0, :2], -1], tokens[1]])


class BudgetCutTest(parameterized.TestCase):
  SCORES = np.random.default_rng(0).normal(size=(3, 12)).astype(np.float32)
  MASK = np.arange(12) < np.asarray([[12], [9], [5]])
  COUNTS = np.asarray([3, 9, 1])

  def shares(self, scores, width, cut):
    with np.errstate(over="ignore"):
      return np.where(self.MASK, 1 / (1 + np.exp(-(scores - cut[:, None]) / width[:, None])), 0)

  @parameterized.parameters(3.0, 0.5, 0.1, 1e-3)
  def test_shares_add_up_to_the_count_whatever_the_scores(self, width):
    for scores in (self.SCORES, self.SCORES**3, 100 + self.SCORES, np.round(self.SCORES)):
      widths = width * scores.std(axis=1)
      cut = np.asarray(learned.budget_cut(scores, self.MASK, self.COUNTS, widths))
      # The second row keeps all of its tokens.
      np.testing.assert_allclose(self.shares(scores, widths, cut).sum(axis=1), self.COUNTS, rtol=1e-3)

  def test_gradient_keeps_the_budget(self):
    widths = np.asarray([0.5, 0.5, 0.3], np.float32)

    def total(scores):
      cut = learned.budget_cut(scores, self.MASK, np.asarray([3, 4, 1]), widths)
      return jnp.where(self.MASK, jax.nn.sigmoid((scores - cut[:, None]) / widths[:, None]), 0).sum()

    def cuts(scores):
      return learned.budget_cut(scores, self.MASK, np.asarray([3, 4, 1]), widths)

    np.testing.assert_allclose(jax.grad(total)(self.SCORES), 0, atol=1e-5)
    # A score that all tokens gain, the cut gains too.
    _, moved = jax.jvp(cuts, (self.SCORES,), (np.ones_like(self.SCORES),))
    np.testing.assert_allclose(moved, 1, rtol=1e-4)


if __name__ == "__main__":
  absltest.main()
