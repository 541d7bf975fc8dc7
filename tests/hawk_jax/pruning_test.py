"""Settings and arrays of pruning: what is refused, and numbers at the edge of float32."""

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from hawk_jax import prompt as prompt_lib
from hawk_jax import pruning
from hawk_jax import scoring

BATCH, SLOTS, HEADS, WIDTH = 2, 16, 4, 8


def make_prompt():
  text = np.tile(np.arange(2, dtype=np.int32), [BATCH, 1])
  visual = np.tile(np.arange(2, 2 + SLOTS, dtype=np.int32), [BATCH, 1])
  return prompt_lib.Prompt(
    text_tokens=text,
    text_order=text,
    text_positions=text[..., None],
    query_mask=np.ones([BATCH, 2], bool),
    visual_slots=visual - 2,
    visual_order=visual,
    visual_positions=visual[..., None],
    visual_places=visual,
    next_position=np.full([BATCH], 2 + SLOTS, np.int32),
  )


class PlanTest(parameterized.TestCase):
  @parameterized.parameters(
    (dict(seeds=0.5), "selector_seed: got float64 of shape .., must be a whole number, or one per prompt"),
    (dict(seeds=True), "selector_seed: got bool of shape"),
    (dict(seeds=[1, 2, 3]), r"selector_seed: got shape \(3,\), must be a whole number, or one per prompt: \[2\]"),
    (dict(scores="a"), "scores: got <U1 of shape .., must be finite numbers"),
    (dict(scores=np.ones([2, 3])), r"scores: got float64 of shape \(2, 3\), must be finite numbers \[2, 16\]"),
    (dict(scores=np.full([2, 16], 1e300)), "scores: 32 are not finite in float32"),
    (dict(scores=np.full([2, 16], np.nan)), "scores: 32 are not finite in float32"),
    (dict(scores=np.ones([2, 16], complex)), "scores: got complex128"),
    (dict(head_importance=np.ones(4) * 1j), r"head_importance: got complex128 of shape \(4,\), must be an array of numbers"),
    (dict(head_importance="uniform"), "head_importance: got <U7 of shape"),
    (dict(head_importance=[[1], [1, 2]]), "head_importance: got .*, must be an array of numbers"),
    (dict(head_importance=np.ones([3, 4])), "head_importance: got weights for 3 prompts, the batch has 2"),
  )
  def test_arrays_that_are_refused(self, arrays, message):
    with self.assertRaisesRegex(ValueError, message):
      pruning.Pruning(keep_ratio=0.5).plan(make_prompt(), HEADS, **arrays)

  @parameterized.parameters(3e38, 1e30, 1e-30, 1e-40)
  def test_importance_of_any_size_ranks_the_same(self, size):
    plan = lambda weights: pruning.Pruning(keep_ratio=0.5).plan(make_prompt(), HEADS, np.asarray(weights, np.float32))
    expected, found = plan([1.0, 0.5, 0.0, 0.25]), plan(np.asarray([1.0, 0.5, 0.0, 0.25]) * size)
    np.testing.assert_allclose(
      found.head_importance / found.head_importance.max(),
      expected.head_importance,
      rtol=1e-6,
      atol=1e-4 * (size < 1e-38),
    )
    self.assertBetween(found.head_importance.max(), 0.5, 1.0)

  @parameterized.parameters(
    (dict(keep_count=0), "keep_count: got 0, must be a whole number of at least 1"),
    (dict(keep_count=4, counts=np.ones([3], np.int32)), r"counts: got int32 of shape \(3,\), must be whole numbers \[2\]"),
    (dict(keep_count=4, counts="ab"), r"counts: got <U2 of shape \(\), must be whole numbers \[2\]"),
    (dict(keep_count=4, counts=np.ones([2], object)), r"counts: got object of shape \(2,\), must be whole numbers \[2\]"),
    (dict(keep_count=4, counts=np.ones([2])), r"counts: got float32 of shape \(2,\), must be whole numbers \[2\]"),
    (dict(keep_count=4, head_importance=np.ones(3)), r"head_importance: got shape \(3,\), must be \[4\] or \[2, 4\]"),
    (dict(keep_count=4, head_importance=np.ones([5, 4])), r"head_importance: got shape \(5, 4\), must be \[4\] or \[2, 4\]"),
  )
  def test_plans_that_are_refused(self, plan, message):
    projections = scoring.Projections(jnp.ones([WIDTH, HEADS, 2]), jnp.ones([WIDTH, HEADS, 2]))
    with self.assertRaisesRegex(ValueError, message):
      pruning.prune(
        make_prompt(), jnp.ones([BATCH, 2, WIDTH]), jnp.ones([BATCH, SLOTS, WIDTH]), projections, pruning.Plan(**plan)
      )

  @parameterized.parameters(
    (dict(prune_layer=float("inf")), "prune_layer: got inf"),
    (dict(keep_mass="a"), "keep_mass: got 'a'"),
    (dict(keep_ratio=True), "keep_ratio: got True"),
    (dict(keep_count=1e300), r"keep_count: got 1e\+300"),
    (dict(rounding=None), "rounding: got None"),
    (dict(selector=["hawk"]), "selector: got .'hawk'., allowed are hawk"),
  )
  def test_settings_that_are_refused(self, settings, message):
    with self.assertRaisesRegex(ValueError, message):
      pruning.Pruning(**settings)


if __name__ == "__main__":
  absltest.main()
