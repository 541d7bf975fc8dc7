"""Decoding: end tokens, lengths, sampling."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from models import generate
from models import sampling
from models.checkpoints import params as params_lib
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import qwen2_5_vl as reference

TOKENS = 12


class GenerationTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model = Qwen2_5_VL(config_lib.from_hf(reference.CONFIGS["gqa"]))
    cls.params = params_lib.init(cls.model, scale=0.15)
    cls.inputs = cls.model.pack(**reference.batch(("square", "text_only", "two_images")))
    cls.free = cls.generate(cls)

  def generate(self, **arguments):
    arguments = {"keep_ratio": 0.3, "max_new_tokens": TOKENS, "return_logits": True, **arguments}
    return jax.device_get(generate(self.model, self.params, self.inputs, **arguments))

  def test_greedy_tokens_are_the_likeliest(self):
    np.testing.assert_array_equal(self.free.logits.argmax(-1), self.free.tokens)
    np.testing.assert_array_equal(self.free.lengths, TOKENS)

  def test_each_row_stops_at_its_own_end_token(self):
    ends = self.free.tokens[0, 4], self.free.tokens[1, 7]
    out = self.generate(eos_token_ids=ends)
    for row, expected, logits in zip(range(3), self.free.tokens, self.free.logits):
      stop = np.flatnonzero(np.isin(expected, ends))
      length = stop[0] + 1 if stop.size else TOKENS
      self.assertEqual(out.lengths[row], length)
      np.testing.assert_array_equal(out.tokens[row, :length], expected[:length])
      np.testing.assert_array_equal(out.tokens[row, length:], expected[length - 1])
      np.testing.assert_allclose(out.logits[row, :length], logits[:length], atol=1e-5)
      np.testing.assert_array_equal(out.logits[row, length:], 0)
    self.assertLess(out.lengths[0], TOKENS)

  def test_logits_only_when_asked_for(self):
    self.assertIsNone(self.generate(return_logits=False).logits)

  def test_sampling_follows_the_seed(self):
    first, again, other = (self.generate(temperature=1.0, seed=seed).tokens for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    self.assertTrue((first != other).any())

  def test_top_k_of_one_is_greedy(self):
    np.testing.assert_array_equal(self.generate(temperature=1.0, top_k=1).tokens, self.free.tokens)

  @parameterized.parameters(dict(temperature=0.7), dict(top_k=3), dict(top_p=0.6), dict(top_k=4, top_p=0.7))
  def test_shares_of_sampled_tokens(self, temperature=1.0, top_k=0, top_p=1.0):
    logits = np.asarray([1.5, 0.2, 2.0, -1.0, 0.9], np.float32)
    shares = np.exp(logits / temperature) / np.exp(logits / temperature).sum()
    order = np.argsort(-shares)
    keep = np.zeros(5, bool)
    total = 0.0
    kept_by_rank = order[: top_k or 5]
    rank_total = shares[kept_by_rank].sum()
    for token in kept_by_rank:
      if total < top_p:
        keep[token] = True
      total += shares[token] / rank_total
    expected = np.where(keep, shares, 0) / shares[keep].sum()
    settings = sampling.make(temperature, top_k, top_p, 0)
    draw = jax.jit(lambda step: sampling.choose(jnp.asarray(logits)[None].repeat(64, 0), step, settings))
    drawn = np.concatenate([draw(jnp.int32(step)) for step in range(60)])
    found = np.bincount(drawn, minlength=5) / len(drawn)
    np.testing.assert_array_equal(found > 0, keep)
    np.testing.assert_allclose(found, expected, atol=0.03)


if __name__ == "__main__":
  absltest.main()
