"""Sampling with settings at the edge of float32."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from models import sampling


class SamplingTest(parameterized.TestCase):
  @parameterized.parameters(
    dict(temperature=1e-300), dict(temperature=1.0, top_p=1e-300), dict(temperature=1e300, top_k=1), dict(temperature=1e-30)
  )
  def test_only_the_most_likely_token_is_left(self, **settings):
    logits = np.random.default_rng(0).standard_normal([5, 40]).astype(np.float32) * 1000
    chosen = jax.jit(sampling.choose)(jnp.asarray(logits), jnp.int32(0), sampling.make(**settings))
    np.testing.assert_array_equal(chosen, logits.argmax(-1))

  def test_an_endless_temperature_favours_none(self):
    logits = jnp.tile(jnp.arange(4.0), [4000, 1])
    chosen = sampling.choose(logits, jnp.int32(0), sampling.make(temperature=1e300))
    np.testing.assert_allclose(np.bincount(chosen, minlength=4) / 4000, 0.25, atol=0.04)


if __name__ == "__main__":
  absltest.main()
