"""Every selector: against a plain loop on many random rows, and what all of them must do."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import selectors
from tests.reference import numpy_selectors

CASES, SLOTS, WIDTH, KEEP = 200, 24, 16, 12
PLACES = 4  # tokens of a frame
# Rules whose first picks do not depend on the budget.
NESTED = ("hawk", "divprune", "hawk+dpp", "hawk+mmr", "qaprune", "hawk+tops", "scope", "coin", "zooprune", "evs")


def make_cases(seed=0):
  """Rows of any number of real tokens anywhere, half of them with many equal tokens, cosines and scores.

  The features of those rows are zeros and four ones, so that their cosines are exact in float32, and ties are ties.
  """
  rng = np.random.default_rng(seed)
  mask = rng.random([CASES, SLOTS]).argsort(axis=1) < rng.integers(0, SLOTS + 1, [CASES, 1])
  features, scores = rng.standard_normal([CASES, SLOTS, WIDTH]), rng.standard_normal([CASES, SLOTS])
  features *= rng.uniform(0.5, 2, [CASES, SLOTS, 1])
  counts = np.zeros(CASES, np.int32)
  for row in range(CASES):
    distinct = mask[row].sum()
    if row % 2:
      patterns = rng.random([SLOTS, WIDTH]).argsort(axis=1) < 4
      kinds = rng.integers(0, SLOTS // 2, SLOTS)
      features[row], distinct = patterns[kinds], len(np.unique(patterns[kinds][mask[row]], axis=0))
    if row % 4 > 1:
      scores[row] = rng.integers(-2, 3, SLOTS) / 2
    counts[row] = rng.integers(0, min(KEEP, distinct) + 1)
  number = np.cumsum(mask, axis=1) - 1
  curve = np.where(mask, (number * 7 + 3) % np.maximum(mask.sum(axis=1, keepdims=True), 1), 0)
  for row in range(CASES):  # any order
    curve[row, mask[row]] = rng.permutation(mask[row].sum())
  return dict(
    features=features.astype(np.float32),
    scores=scores.astype(np.float32),
    visual_mask=mask,
    counts=counts,
    seeds=np.arange(CASES, dtype=np.uint32),
    places=np.where(mask, 7 + number % PLACES, 0).astype(np.int32),
    curve=curve.astype(np.int32),
    question=rng.standard_normal([CASES, WIDTH]).astype(np.float32),
  )


@functools.cache
def compiled(name):
  return jax.jit(selectors.SELECTORS[name], static_argnames="keep_count")


class RulesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.cases = make_cases()

  def arguments(self, name, **changes):
    cases = self.cases | changes
    if selectors.SELECTORS[name].relevance in selectors.MEASURED:  # such scores are not negative
      cases["scores"] = np.abs(cases["scores"])
    return cases

  def select(self, name, rows=slice(None), **changes):
    arguments = self.arguments(name, **changes)
    return np.asarray(compiled(name)(**{key: jnp.asarray(value[rows]) for key, value in arguments.items()}, keep_count=KEEP))

  @parameterized.parameters(*selectors.SELECTORS)
  def test_form(self, name):
    kept = self.select(name)
    self.assertEqual((kept.shape, kept.dtype), ((CASES, KEEP), np.int32))
    for row, mask, count in zip(kept, self.cases["visual_mask"], self.cases["counts"]):
      chosen = row[:count]
      self.assertTrue((np.diff(chosen) > 0).all())
      self.assertTrue(mask[chosen].all())
      np.testing.assert_array_equal(row[count:], -1)

  @parameterized.parameters(*numpy_selectors.RULES)
  def test_equals_plain_loop(self, name):
    kept, arguments = self.select(name), self.arguments(name)
    needs = selectors.SELECTORS[name].needs
    for row, count in enumerate(arguments["counts"]):
      real = np.flatnonzero(arguments["visual_mask"][row])
      if not count:
        continue
      needed = {key: arguments[key][row] for key in ("places", "curve", "question") if key in needs}
      needed = {key: value if key == "question" else value[real] for key, value in needed.items()}
      features, scores = (arguments[key][row, real].astype(np.float64) for key in ("features", "scores"))
      expected = numpy_selectors.RULES[name](features, scores, count, **needed)
      np.testing.assert_array_equal(kept[row, :count], np.sort(real[expected]), err_msg=f"row {row}")

  def test_every_rule_has_a_plain_loop(self):
    self.assertCountEqual([*numpy_selectors.RULES, "random"], selectors.SELECTORS)

  @parameterized.parameters(*selectors.SELECTORS)
  def test_row_depends_on_itself_alone(self, name):
    """Among other rows, in another place."""
    order = np.random.default_rng(1).permutation(CASES)[:CASES]
    np.testing.assert_array_equal(self.select(name, order), self.select(name)[order])

  @parameterized.parameters(*selectors.SELECTORS)
  def test_padding_has_no_influence(self, name):
    noise = np.where(self.cases["visual_mask"], 0, np.float32(1e6))
    found = self.select(name, scores=self.cases["scores"] + noise, features=self.cases["features"] + noise[..., None])
    np.testing.assert_array_equal(self.select(name), found)

  @parameterized.parameters(*NESTED)
  def test_counts_take_the_first_picks(self, name):
    few, many = self.select(name, counts=self.cases["counts"] // 2), self.select(name)
    for row in range(CASES):
      self.assertContainsSubset(few[row], [*many[row], -1])

  def test_many_rows_in_parts(self):
    """Rows whose cosines are not held at once give the same."""
    from hawk_jax.selectors import greedy

    whole = {name: self.select(name) for name in ("divprune", "hawk+tops", "coin")}
    before, greedy._MOST_COSINES = greedy._MOST_COSINES, 7 * SLOTS**2
    try:
      for name, expected in whole.items():
        function = jax.jit(selectors.SELECTORS[name].__call__, static_argnames="keep_count")
        found = function(**{key: jnp.asarray(value) for key, value in self.arguments(name).items()}, keep_count=KEEP)
        np.testing.assert_array_equal(found, expected)
    finally:
      greedy._MOST_COSINES = before

  def test_evs_keeps_one_frame_from_the_start(self):
    places = np.tile(np.arange(SLOTS, dtype=np.int32), (CASES, 1))  # no place occurs twice: a picture
    kept = self.select("evs", places=places)
    for row, count in enumerate(self.cases["counts"]):
      np.testing.assert_array_equal(kept[row, :count], np.flatnonzero(self.cases["visual_mask"][row])[:count])

  def test_random_follows_the_seed_and_favours_none(self):
    np.testing.assert_array_equal(self.select("random"), self.select("random"))
    rows = 4000
    kept = jax.jit(selectors.random, static_argnames="keep_count")(
      jnp.zeros([rows, 10, 1]),
      jnp.zeros([rows, 10]),
      jnp.ones([rows, 10], bool),
      jnp.full([rows], 3),
      jnp.arange(rows, dtype=jnp.uint32),
      keep_count=3,
    )
    shares = np.bincount(np.asarray(kept).reshape(-1), minlength=10) / rows
    np.testing.assert_allclose(shares, 0.3, atol=0.04)


if __name__ == "__main__":
  absltest.main()
