"""Every selector against a plain loop."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from hawk_jax import selectors


def unit(features):
  return features / np.maximum(np.linalg.norm(features, axis=-1, keepdims=True), 1e-12)


def divprune(features, scores, count):
  del scores
  distance = 1 - unit(features) @ unit(features).T
  others = distance + np.where(np.eye(len(features)), np.inf, 0)
  picks = [int(np.argmax(others.min(axis=1)))]
  while len(picks) < count:
    nearest = distance[:, picks].min(axis=1)
    nearest[picks] = -np.inf
    picks.append(int(np.argmax(nearest)))
  return picks


def relevance_of(scores):
  return (scores - scores.min()) / (scores.max() - scores.min())


def dpp(features, scores, count):
  """Greedy MAP by determinants: every step adds the token that leaves the largest determinant of the kernel."""
  relevance = relevance_of(scores)
  kernel = relevance[:, None] * (unit(features) @ unit(features).T) * relevance
  picks = []
  while len(picks) < count:
    values = [
      -np.inf if i in picks else np.linalg.slogdet(kernel[np.ix_(picks + [i], picks + [i])])[1] for i in range(len(features))
    ]
    picks.append(int(np.argmax(values)))
  return picks


def hawk_mmr(features, scores, count):
  relevance, cosine = relevance_of(scores), unit(features) @ unit(features).T
  picks = [int(np.argmax(relevance))]
  while len(picks) < count:
    value = 0.5 * relevance - 0.5 * cosine[:, picks].max(axis=1)
    value[picks] = -np.inf
    picks.append(int(np.argmax(value)))
  return picks


def hawk(features, scores, count):
  del features
  return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]


def qaprune(features, scores, count):
  error, spread = np.zeros(len(features)), np.zeros(len(features))
  for token, vector in enumerate(features):
    groups = [vector[start : start + 128] for start in range(0, len(vector), 128)]
    groups[-1] = np.pad(groups[-1], (0, 128 - len(groups[-1])), mode="edge")
    for group in groups:
      levels = np.linspace(group.min(), group.max(), 16)
      nearest = np.abs(group[:, None] - levels).min(axis=1)
      error[token] += np.mean(nearest**2) / len(groups)
      spread[token] += np.ptp(group) / len(groups)
  sensitivity = (relevance_of(error) + relevance_of(spread)) / 2
  mixed = 0.5 * relevance_of(scores) + 0.5 * sensitivity
  return sorted(range(len(mixed)), key=lambda i: (-mixed[i], i))[:count]


def evs(features, scores, count):
  del scores
  change = [1 - unit(now) @ unit(before) for before, now in zip(features, features[PLACES:])]
  change = [np.inf] * PLACES + change
  return sorted(range(len(features)), key=lambda i: (-change[i], i))[:count]


PLAIN = {
  "hawk": hawk,
  "divprune": divprune,
  "hawk+dpp": dpp,
  "cdpruner": dpp,
  "hawk+mmr": hawk_mmr,
  "qaprune": qaprune,
  "evs": evs,
  "fastv": hawk,
}
BATCH, SLOTS, WIDTH, KEEP = 4, 24, 160, 12
PLACES = 4  # tokens of a frame, two by two


class SelectorsTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.features = rng.standard_normal([BATCH, SLOTS, WIDTH]).astype(np.float32)
    self.scores = rng.standard_normal([BATCH, SLOTS]).astype(np.float32)
    self.mask = np.zeros([BATCH, SLOTS], bool)
    for row, real in enumerate((24, 17, 5, 0)):
      self.mask[row, rng.permutation(SLOTS)[:real]] = True
    self.counts = np.asarray([9, 12, 3, 0], np.int32)
    self.seeds = np.arange(BATCH, dtype=np.uint32)
    number = np.cumsum(self.mask, axis=1) - 1
    self.places = np.where(self.mask, 7 + number % PLACES, 0).astype(np.int32)

  def select(self, name, rows=slice(None), **changes):
    arguments = (
      dict(features=self.features, scores=self.scores, visual_mask=self.mask, counts=self.counts, seeds=self.seeds) | changes
    )
    if "places" in selectors.SELECTORS[name].needs:
      arguments["places"] = self.places
    function = jax.jit(selectors.SELECTORS[name], static_argnames="keep_count")
    return np.asarray(function(**{key: jnp.asarray(value[rows]) for key, value in arguments.items()}, keep_count=KEEP))

  @parameterized.parameters(*selectors.SELECTORS)
  def test_form(self, name):
    kept = self.select(name)
    self.assertEqual((kept.shape, kept.dtype), ((BATCH, KEEP), np.int32))
    for row, mask, count in zip(kept, self.mask, self.counts):
      chosen = row[:count]
      self.assertTrue((np.diff(chosen) > 0).all())
      self.assertTrue(mask[chosen].all())
      np.testing.assert_array_equal(row[count:], -1)

  @parameterized.parameters(*PLAIN)
  def test_equals_plain_loop(self, name):
    kept = self.select(name)
    for row in range(BATCH):
      real = np.flatnonzero(self.mask[row])
      count = self.counts[row]
      if count:
        expected = PLAIN[name](self.features[row, real].astype(np.float64), self.scores[row, real].astype(np.float64), count)
        np.testing.assert_array_equal(kept[row, :count], np.sort(real[expected]))

  @parameterized.parameters(*selectors.SELECTORS)
  def test_row_equals_itself_alone(self, name):
    together = self.select(name)
    for row in range(BATCH):
      np.testing.assert_array_equal(self.select(name, slice(row, row + 1))[0], together[row])

  @parameterized.parameters(*selectors.SELECTORS)
  def test_padding_has_no_part(self, name):
    noise = np.where(self.mask, 0, np.float32(1e6))
    np.testing.assert_array_equal(
      self.select(name), self.select(name, scores=self.scores + noise, features=self.features + noise[..., None])
    )

  def test_counts_take_the_first_picks(self):
    for name in PLAIN:
      few, many = self.select(name, counts=np.asarray([4, 6, 2, 0])), self.select(name)
      for row in range(BATCH):
        self.assertContainsSubset(few[row], [*many[row], -1])

  def test_evs_keeps_one_frame_from_the_start(self):
    self.places[:] = np.arange(SLOTS)  # no place occurs twice: a picture
    kept = self.select("evs")
    for row in range(BATCH):
      np.testing.assert_array_equal(kept[row, : self.counts[row]], np.flatnonzero(self.mask[row])[: self.counts[row]])

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
