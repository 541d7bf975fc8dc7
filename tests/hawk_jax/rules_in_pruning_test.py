"""Every rule as part of `prune`: adaptive budgets, rows that do not depend on one another, and what compiles."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import budgets
from hawk_jax import pruning
from hawk_jax import scoring
from hawk_jax import selectors
from hawk_jax.prompt import Prompt

B, T, V, D, H = 3, 5, 16, 8, 2
RULES = [name for name, rule in selectors.SELECTORS.items() if rule.stage == "input"]
COUNTS = (16, 11, 6)  # visual tokens of each row


def make_batch():
  """A batch of prompts whose pictures come after the first text token, its embeddings and what a port measures."""
  rng = np.random.default_rng(0)
  real = np.arange(V) < np.asarray(COUNTS)[:, None]
  text_order = np.where(np.arange(T) > 0, np.asarray(COUNTS)[:, None] + np.arange(T), 0)
  prompt = Prompt(
    text_tokens=np.ones([B, T], np.int32),
    text_order=text_order.astype(np.int32),
    text_positions=text_order[..., None].astype(np.int32),
    query_mask=np.tile(np.arange(T) > 2, (B, 1)),
    visual_slots=np.tile(np.arange(V, dtype=np.int32), (B, 1)),
    visual_order=np.where(real, np.arange(V) + 1, -1).astype(np.int32),
    visual_positions=np.where(real, np.arange(V) + 1, 0)[..., None].astype(np.int32),
    visual_places=np.where(real, np.arange(V) % 4, 0).astype(np.int32),
    visual_curve=np.where(real, np.arange(V), 0).astype(np.int32),
    next_position=np.asarray(COUNTS, np.int32) + T,
  )
  normal = lambda *shape: rng.standard_normal(shape).astype(np.float32)
  measures = {name: np.abs(normal(B, V)) for name in selectors.MEASURED}
  return prompt, normal(B, T, D), normal(B, V, D), measures


class PruneTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.batch = make_batch()
    rng = np.random.default_rng(1)
    kernel = lambda: jnp.asarray(rng.standard_normal([D, H, 4]), jnp.float32)
    cls.projections = scoring.Projections(query=kernel(), key=kernel())

  @parameterized.parameters(*RULES)
  def test_adaptive_budgets_and_other_data_compile_nothing(self, name):
    rule, settings = selectors.SELECTORS[name], pruning.Pruning(selector=name, keep_count=8, keep_mass=0.5, merge="nearest")
    given = np.random.default_rng(2).standard_normal([B, V]) if "scores" in rule.needs else None

    @jax.jit
    def prune(batch, plan):
      prompt, text, visual, measures = batch
      scores = pruning.score(prompt, text, visual, self.projections, plan, measures)
      return scores, pruning.prune(prompt, text, visual, self.projections, plan, measures)

    def check(batch, importance, keep_mass, seeds):
      prompt, text, visual, _ = batch
      plan = settings.plan(prompt, H, importance, scores=given, seeds=seeds).replace(keep_mass=np.float32(keep_mass))
      scores, found = prune(batch, plan)
      counts = np.minimum(8, budgets.mass_counts(scores, prompt.visual_mask, keep_mass))
      kept = np.asarray(found.visual).sum(axis=1)
      np.testing.assert_array_equal(kept, np.minimum(counts, prompt.visual_mask.sum(axis=1)))
      self.assertTrue(np.isfinite(np.asarray(found.embeddings)[np.asarray(found.order) >= 0]).all())
      return np.asarray(found.order)

    seeds = np.arange(B)
    few = check(self.batch, [1.0, 1.0], 0.3, seeds)
    check(self.batch, [3.0, 1.0], 0.9, seeds + 7)
    turned = jax.tree.map(lambda x: x[::-1], self.batch)
    given = None if given is None else given[::-1]
    np.testing.assert_array_equal(check(turned, [1.0, 1.0], 0.3, seeds[::-1]), few[::-1])
    self.assertEqual(prune._cache_size(), 1)


if __name__ == "__main__":
  absltest.main()
