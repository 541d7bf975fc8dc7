"""Scores against the reference that forms all N x V logits (docs/method.md, "Scores")."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import scoring
from tests.reference import numpy_hawk

B, T, V, D, d = 3, 11, 40, 32, 8
TEXT_COUNTS = (4, 1, 7)
VISUAL_COUNTS = (40, 17, 1)


def make_inputs(heads, groups, bias, seed=0, dtype=np.float32):
  """Projections, text [B, T, D], visual [B, V, D], query mask [B, T] and visual mask [B, V], with loud padding."""
  rng = np.random.default_rng(seed)
  normal = lambda *shape: jnp.asarray(rng.normal(size=shape), dtype)
  projections = scoring.Projections(
    query=normal(D, heads, d),
    key=normal(D, groups, d),
    query_bias=normal(heads, d) if bias else None,
    key_bias=normal(groups, d) if bias else None,
  )
  query_mask = np.zeros([B, T], bool)
  for row, count in enumerate(TEXT_COUNTS):
    query_mask[row, rng.choice(T, count, replace=False)] = True
  visual_mask = np.arange(V) < np.array(VISUAL_COUNTS)[:, None]
  text = normal(B, T, D) * np.where(query_mask, 1, 1000)[..., None].astype(dtype)
  visual = normal(B, V, D) * np.where(visual_mask, 1, 1000)[..., None].astype(dtype)
  return projections, text, visual, query_mask, visual_mask


def reference_scores(projections, text, visual, query_mask, visual_mask):
  """[H, V_b] float64 for each row b, real visual tokens only."""
  flat = lambda kernel: np.asarray(kernel, np.float64).reshape(D, -1).T
  bias = lambda x: None if x is None else np.asarray(x, np.float64).reshape(-1)
  heads, groups = projections.query.shape[1], projections.key.shape[1]
  return [
    numpy_hawk.head_scores(
      np.asarray(text[row], np.float64)[query_mask[row]],
      np.asarray(visual[row], np.float64)[visual_mask[row]],
      flat(projections.query),
      flat(projections.key),
      bias(projections.query_bias),
      bias(projections.key_bias),
      heads,
      groups,
    )
    for row in range(B)
  ]


class HeadScoresTest(parameterized.TestCase):
  @parameterized.product(heads_groups=[(8, 8), (8, 2), (12, 4), (7, 1)], bias=[True, False])
  def test_equal_the_mean_of_all_logits(self, heads_groups, bias):
    inputs = make_inputs(*heads_groups, bias)
    scores = scoring.head_scores(*inputs[:4])
    self.assertEqual(scores.shape, (B, heads_groups[0], V))
    for row, expected in enumerate(reference_scores(*inputs)):
      np.testing.assert_allclose(scores[row, :, : VISUAL_COUNTS[row]], expected, rtol=1e-5, atol=1e-4)

  def test_biases_matter(self):
    projections, *inputs = make_inputs(8, 2, True)
    whole = scoring.head_scores(projections, *inputs[:3])
    for name in ("query_bias", "key_bias"):
      without = scoring.head_scores(projections.replace(**{name: None}), *inputs[:3])
      self.assertGreater(float(jnp.abs(whole - without).max()), 1.0)

  def test_bfloat16_inputs_are_computed_in_float32(self):
    inputs = make_inputs(8, 2, True, dtype=jnp.bfloat16)
    scores = scoring.head_scores(*inputs[:4])
    self.assertEqual(scores.dtype, jnp.float32)
    for row, expected in enumerate(reference_scores(*inputs)):
      np.testing.assert_allclose(scores[row, :, : VISUAL_COUNTS[row]], expected, rtol=1e-5, atol=1e-4)

  @parameterized.parameters(np.nan, np.inf, -np.inf)
  def test_non_finite_visual_token_scores_zero_alone(self, value):
    projections, text, visual, query_mask, _ = make_inputs(8, 2, True)
    clean = scoring.head_scores(projections, text, visual, query_mask)
    scores = scoring.head_scores(projections, text, visual.at[0, 5, 3].set(value), query_mask)
    np.testing.assert_array_equal(scores[0, :, 5], 0.0)
    others = np.arange(V) != 5
    np.testing.assert_array_equal(scores[0][:, others], clean[0][:, others])
    np.testing.assert_array_equal(scores[1:], clean[1:])

  @parameterized.parameters(np.nan, np.inf)
  def test_non_finite_query_token_zeroes_its_row(self, value):
    projections, text, visual, query_mask, _ = make_inputs(8, 2, True)
    clean = scoring.head_scores(projections, text, visual, query_mask)
    token = np.flatnonzero(query_mask[1])[0]
    scores = scoring.head_scores(projections, text.at[1, token].set(value), visual, query_mask)
    np.testing.assert_array_equal(scores[1], 0.0)
    np.testing.assert_array_equal(scores[jnp.array([0, 2])], clean[jnp.array([0, 2])])

  @parameterized.parameters(np.nan, np.inf)
  def test_non_finite_token_outside_the_query_has_no_part(self, value):
    projections, text, visual, query_mask, _ = make_inputs(8, 2, True)
    clean = scoring.head_scores(projections, text, visual, query_mask)
    token = np.flatnonzero(~query_mask[1])[0]
    scores = scoring.head_scores(projections, text.at[1, token].set(value), visual, query_mask)
    np.testing.assert_array_equal(scores, clean)

  def test_row_without_query_tokens_scores_zero(self):
    projections, text, visual, query_mask, _ = make_inputs(8, 2, True)
    query_mask[1] = False
    scores = scoring.head_scores(projections, text, visual, query_mask)
    np.testing.assert_array_equal(scores[1], 0.0)
    self.assertTrue((scores[0] != 0).all())


class NormedHeadScoresTest(parameterized.TestCase):
  """Models that normalize each head's queries and keys (Qwen3)."""

  def inputs(self, heads, groups, bias):
    projections, *rest = make_inputs(heads, groups, bias)
    rng = np.random.default_rng(3)
    norm = lambda: jnp.asarray(rng.uniform(0.2, 2, d), jnp.float32)
    return projections.replace(query_norm=norm(), key_norm=norm()), *rest

  @parameterized.product(heads_groups=[(8, 8), (8, 2), (7, 1)], bias=[True, False])
  def test_equal_the_mean_of_all_logits(self, heads_groups, bias):
    projections, text, visual, query_mask, visual_mask = self.inputs(*heads_groups, bias)
    scores = np.asarray(scoring.head_scores(projections, text, visual, query_mask))
    wide = lambda x: np.asarray(x, np.float64)

    def project(x, kernel, bias, norm):
      x = np.einsum("tD,DNd->tNd", wide(x), wide(kernel)) + (0 if bias is None else wide(bias))
      return x / np.sqrt((x**2).mean(-1, keepdims=True) + projections.epsilon) * wide(norm)

    for row in range(B):
      queries = project(text[row][query_mask[row]], projections.query, projections.query_bias, projections.query_norm)
      keys = project(visual[row][visual_mask[row]], projections.key, projections.key_bias, projections.key_norm)
      keys = np.repeat(keys, heads_groups[0] // heads_groups[1], axis=1)
      expected = np.einsum("nhd,vhd->nhv", queries, keys).mean(0) / np.sqrt(d)
      np.testing.assert_allclose(scores[row, :, : VISUAL_COUNTS[row]], expected, rtol=1e-5, atol=1e-5)

  def test_folding_would_rank_differently(self):
    projections, text, visual, query_mask, _ = self.inputs(8, 2, True)
    exact = np.asarray(scoring.head_scores(projections, text, visual, query_mask))
    folded = np.asarray(scoring.head_scores(projections.replace(query_norm=None, key_norm=None), text, visual, query_mask))
    self.assertTrue((exact[0].argsort(-1) != folded[0].argsort(-1)).any(-1).all())


def turn(x, positions):
  """A rotation of the first two numbers of every head, by its position in radians."""
  angle = positions[..., None, 0]
  first, second = x[..., 0], x[..., 1]
  turned = jnp.cos(angle) * first - jnp.sin(angle) * second, jnp.sin(angle) * first + jnp.cos(angle) * second
  return jnp.concatenate([jnp.stack(turned, axis=-1), x[..., 2:]], axis=-1)


class RotaryTest(parameterized.TestCase):
  @parameterized.parameters((8, 8, True), (12, 4, True), (8, 2, False))
  def test_positions_of_zero_change_nothing(self, heads, groups, bias):
    projections, *inputs, _ = make_inputs(heads, groups, bias)
    zeros = jnp.zeros([B, T, 1]), jnp.zeros([B, V, 1])
    turned = scoring.head_scores(projections.replace(rotate=turn), *inputs, zeros)
    np.testing.assert_allclose(turned, scoring.head_scores(projections, *inputs), rtol=1e-4, atol=1e-4)

  def test_equals_the_mean_of_all_turned_logits(self):
    projections, text, visual, query_mask, visual_mask = make_inputs(8, 2, True)
    rng = np.random.default_rng(3)
    positions = rng.integers(0, 9, [B, T, 1]), rng.integers(0, 9, [B, V, 1])
    found = scoring.head_scores(projections.replace(rotate=turn), text, visual, query_mask, positions)
    project = lambda x, kernel, bias: np.einsum("td,dhe->the", np.asarray(x, np.float64), kernel) + np.asarray(bias)
    for row in range(B):
      query = turn(project(text[row], projections.query, projections.query_bias), positions[0][row])[query_mask[row]]
      key = turn(project(visual[row], projections.key, projections.key_bias), positions[1][row])
      logits = np.einsum("nhe,vhe->nhv", query, np.repeat(key, 4, axis=1)) / np.sqrt(d)
      real = visual_mask[row]
      np.testing.assert_allclose(found[row][:, real], logits.mean(axis=0)[:, real], rtol=1e-4, atol=1e-3)


class QuestionTest(parameterized.TestCase):
  """Weights and queries that follow from the question."""

  def test_weights_equal_plain_reading(self):
    rng = np.random.default_rng(0)
    visual, text = rng.standard_normal([B, 8, V]) * 3, rng.standard_normal([B, 8, T])
    visual_mask, text_mask = rng.random([B, V]) < 0.5, rng.random([B, T]) < 0.7
    mass, entropy = (
      np.asarray(scoring.question_weights(visual, text, visual_mask, text_mask, kind)) for kind in scoring.QUESTION_WEIGHTS
    )
    for row in range(B):
      seen = np.exp(visual[row][:, visual_mask[row]])
      share = seen.sum(axis=1) / (seen.sum(axis=1) + np.exp(text[row][:, text_mask[row]]).sum(axis=1))
      np.testing.assert_allclose(mass[row], share / share.sum(), rtol=1e-5)
      looks = seen / seen.sum(axis=1, keepdims=True)
      inverse = 1 / -(looks * np.log(looks)).sum(axis=1)
      np.testing.assert_allclose(entropy[row], inverse / inverse.sum(), rtol=1e-5)

  @parameterized.parameters(*scoring.QUESTION_WEIGHTS)
  def test_weights_of_degenerate_rows_are_finite(self, kind):
    one, none = np.eye(1, V, dtype=bool).repeat(B, axis=0), np.zeros([B, V], bool)
    for mask in (one, none):
      weights = scoring.question_weights(np.zeros([B, 8, V]), np.zeros([B, 8, T]), mask, none[:, :T], kind)
      self.assertTrue(np.isfinite(weights).all())

  def test_unknown_weights(self):
    with self.assertRaisesRegex(ValueError, "head_weights: got 'sum', allowed are mass, entropy"):
      scoring.question_weights(np.zeros([1, 1, 1]), np.zeros([1, 1, 1]), np.ones([1, 1], bool), np.ones([1, 1], bool), "sum")

  def test_key_norms(self):
    projections, _, visual, _, _ = make_inputs(8, 2, True)
    keys = np.einsum("bvd,dge->bvge", np.asarray(visual, np.float64), projections.key) + np.asarray(projections.key_bias)
    np.testing.assert_allclose(scoring.key_norms(projections, visual), np.abs(keys).sum(axis=(2, 3)), rtol=1e-5)

  def test_mean_query(self):
    _, text, _, query_mask, _ = make_inputs(8, 2, True)
    query_mask[2] = False
    found = scoring.mean_query(text, jnp.asarray(query_mask))
    for row in (0, 1):
      np.testing.assert_allclose(found[row], text[row][query_mask[row]].mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(found[2], 0)


class NormalizeTest(parameterized.TestCase):
  @parameterized.parameters(*scoring.NORMALIZATIONS)
  def test_equals_numpy(self, normalization):
    *inputs, visual_mask = make_inputs(8, 2, True)
    scores = scoring.head_scores(*inputs)
    result = np.asarray(scoring.normalize(scores, visual_mask, normalization))
    for row, count in enumerate(VISUAL_COUNTS):
      expected = numpy_hawk.normalize(np.asarray(scores[row, :, :count]), normalization)
      np.testing.assert_allclose(result[row, :, :count], expected, rtol=1e-5, atol=1e-6)
      np.testing.assert_array_equal(result[row, :, count:], 0.0)

  @parameterized.parameters(*scoring.NORMALIZATIONS)
  def test_degenerate_rows_stay_finite(self, normalization):
    """All scores zero, all scores equal, no visual token at all."""
    scores = jnp.stack([jnp.zeros([2, 5]), jnp.full([2, 5], -3.0), jnp.full([2, 5], 7.0)])
    mask = np.array([[True] * 5, [True] * 5, [False] * 5])
    result = scoring.normalize(scores, mask, normalization)
    self.assertTrue(np.isfinite(result).all())
    np.testing.assert_array_equal(result[2], 0.0)
    equal = {"l2": -(5**-0.5), "softmax": 0.2, "minmax": 0.0, "none": -3.0}[normalization]
    np.testing.assert_allclose(result[1], np.full([2, 5], equal), rtol=1e-6)
    np.testing.assert_allclose(result[0], np.full([2, 5], 0.2 if normalization == "softmax" else 0.0), rtol=1e-6)

  def test_unknown(self):
    with self.assertRaisesRegex(ValueError, "normalization: got 'l1', allowed are l2, softmax, minmax, none"):
      scoring.normalize(jnp.zeros([1, 1, 1]), jnp.ones([1, 1], bool), "l1")


class FuseTest(parameterized.TestCase):
  @parameterized.product(normalization=scoring.NORMALIZATIONS, heads_groups=[(8, 8), (8, 2)])
  def test_whole_path_equals_numpy(self, normalization, heads_groups):
    inputs = make_inputs(*heads_groups, True, seed=1)
    weights = np.random.default_rng(2).dirichlet(np.ones(heads_groups[0])).astype(np.float32)
    scores = scoring.normalize(scoring.head_scores(*inputs[:4]), inputs[4], normalization)
    fused = np.asarray(scoring.fuse(scores, jnp.asarray(weights)))
    self.assertEqual(fused.shape, (B, V))
    for row, raw in enumerate(reference_scores(*inputs)):
      expected = numpy_hawk.fuse(numpy_hawk.normalize(raw, normalization), weights)
      # Softmax turns the logits' rounding errors (up to 1e-4 on values in the hundreds) into relative ones.
      np.testing.assert_allclose(fused[row, : VISUAL_COUNTS[row]], expected, rtol=2e-4, atol=1e-4)
      np.testing.assert_array_equal(fused[row, VISUAL_COUNTS[row] :], 0.0)

  def test_weights_per_row(self):
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=[3, 4, 6]), jnp.float32)
    weights = jnp.asarray(rng.random([3, 4]), jnp.float32)
    rows = [scoring.fuse(scores[b : b + 1], weights[b])[0] for b in range(3)]
    np.testing.assert_allclose(scoring.fuse(scores, weights), rows, rtol=1e-6)

  def test_many_importances_at_once(self):
    rng = np.random.default_rng(0)
    scores = jnp.asarray(rng.normal(size=[2, 4, 6]), jnp.float32)
    weights = jnp.asarray(rng.random([100, 4]), jnp.float32)
    fused = jax.vmap(scoring.fuse, in_axes=(None, 0))(scores, weights)
    np.testing.assert_allclose(fused, np.einsum("NH,BHV->NBV", weights, scores), rtol=1e-5, atol=1e-6)

  def test_gradient_by_importance_is_the_normalized_score(self):
    scores = jnp.asarray(np.random.default_rng(0).normal(size=[1, 4, 6]), jnp.float32)
    gradient = jax.grad(lambda weights: scoring.fuse(scores, weights)[0, 2])(jnp.ones([4]))
    np.testing.assert_allclose(gradient, scores[0, :, 2], rtol=1e-6)


if __name__ == "__main__":
  absltest.main()
