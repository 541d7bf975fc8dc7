"""Merging, the sink filter and the region floor, before and after every rule, against plain loops."""

import functools

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import selectors
from tests.hawk_jax.selectors import rules_test
from tests.reference import numpy_selectors

KEEP = rules_test.KEEP
RULES = ("hawk", "pool", "visionzip", "hawk+mmr")


@functools.cache
def compiled(name, **settings):
  rule = selectors.SELECTORS[name]
  return jax.jit(functools.partial(selectors.select, rule, keep_count=KEEP, **settings))


def plain(name, features, scores, count, needed, curve, merge="none", sink_filter=0.0, region_floor=0.0):
  """What one row keeps, ascending, and the embeddings of these tokens."""
  number, rule = len(features), selectors.SELECTORS[name]
  several = count > 1
  sinks = numpy_selectors.sinks(features, sink_filter) if several and sink_filter else []
  holder = sinks[:1]
  left = np.asarray([i for i in range(number) if i not in sinks], int)
  rest = min(count - len(holder), len(left))
  floor = numpy_selectors.region_floor(scores[left], curve[left], rest, region_floor) if several and region_floor else []
  floor = left[floor].tolist() if len(floor) else []
  by_rule = np.asarray([i for i in left if i not in floor], int)
  wanted = min(count - len(holder) - len(floor), len(by_rule))
  cut = {key: value if key == "question" else value[by_rule] for key, value in needed.items()}
  picks = by_rule[numpy_selectors.RULES[name](features[by_rule], scores[by_rule], wanted, **cut)].tolist() if wanted else []
  kept = sorted([*holder, *floor, *picks])
  joined = np.full(number, -1)
  joined[kept] = kept
  if rule.merge is not None and wanted:
    own = {"pool": numpy_selectors.pool, "visionzip": numpy_selectors.visionzip_merge}[name]
    inner = own(features[by_rule], scores[by_rule], wanted, [by_rule.tolist().index(pick) for pick in picks], **cut)
    joined[by_rule] = np.where(inner >= 0, by_rule[inner], -1)
  elif rule.merge is None and merge == "nearest":
    centers = [i for i in kept if i not in holder]
    inner = numpy_selectors.nearest(features[left], [left.tolist().index(center) for center in centers])
    joined[left] = np.where(inner >= 0, left[inner], -1)
  joined[sinks] = holder
  return kept, numpy_selectors.average(features, joined, kept) if kept else np.zeros([0, features.shape[1]])


class SelectTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.cases = rules_test.make_cases()
    cls.cases["scores"] = np.abs(cls.cases["scores"])  # as `visionzip` gets them

  def select(self, name, settings, **changes):
    arguments = {key: jnp.asarray(value) for key, value in (self.cases | changes).items()}
    kept, merged = compiled(name, **settings)(**arguments)
    return np.asarray(kept), None if merged is None else np.asarray(merged)

  def rows(self, name):
    """The arguments of `plain` for each row, and its real tokens."""
    needs = [key for key in ("curve", "question") if key in selectors.SELECTORS[name].needs]
    for row, count in enumerate(self.cases["counts"]):
      real = np.flatnonzero(self.cases["visual_mask"][row])
      needed = {key: self.cases[key][row] if key == "question" else self.cases[key][row, real] for key in needs}
      features, scores = (self.cases[key][row, real].astype(np.float64) for key in ("features", "scores"))
      yield row, real, (features, scores, int(count), needed, self.cases["curve"][row, real])

  @parameterized.product(
    name=RULES,
    settings=[
      {},
      {"merge": "nearest"},
      {"sink_filter": 0.1},
      {"region_floor": 0.3},
      {"merge": "nearest", "sink_filter": 0.1, "region_floor": 0.5},
    ],
  )
  def test_equals_plain_loop(self, name, settings):
    kept, merged = self.select(name, settings)
    self.assertEqual(merged is None, not selectors.SELECTORS[name].merge and not {*settings} & {"merge", "sink_filter"})
    for row, real, arguments in self.rows(name):
      expected, averages = plain(name, *arguments, **settings)
      found = kept[row]
      np.testing.assert_array_equal(found[found >= 0], real[expected], err_msg=f"row {row}")
      np.testing.assert_array_equal(found[len(expected) :], -1)
      if merged is not None:
        np.testing.assert_allclose(merged[row, : len(expected)], averages, atol=1e-5, err_msg=f"row {row}")
        np.testing.assert_array_equal(merged[row, len(expected) :], 0)

  @parameterized.parameters(*selectors.SELECTORS)
  def test_every_rule_keeps_its_budget_with_everything_on(self, name):
    kept, merged = self.select(name, {"merge": "nearest", "sink_filter": 0.01, "region_floor": 0.25})
    counts = np.minimum(self.cases["counts"], self.cases["visual_mask"].sum(axis=1))
    np.testing.assert_array_equal((kept >= 0).sum(axis=1), counts)
    for row, count in enumerate(counts):
      self.assertTrue((np.diff(kept[row, :count]) > 0).all())
      self.assertTrue(self.cases["visual_mask"][row, kept[row, :count]].all())
    self.assertTrue(np.isfinite(merged).all())

  @parameterized.parameters({"merge": "nearest"}, {"sink_filter": 0.1}, {"region_floor": 0.3})
  def test_padding_has_no_influence(self, **settings):
    noise = np.where(self.cases["visual_mask"], 0, np.float32(1e6))
    plain, noisy = (
      self.select("hawk", settings, scores=self.cases["scores"] + add, features=self.cases["features"] + add[..., None])
      for add in (np.zeros_like(noise), noise)
    )
    np.testing.assert_array_equal(plain[0], noisy[0])
    if plain[1] is not None:
      np.testing.assert_array_equal(plain[1], noisy[1])


if __name__ == "__main__":
  absltest.main()
