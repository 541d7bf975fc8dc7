"""Ablating heads by the estimator and by a plain loop gives the same numbers."""

from unittest import mock

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np

from experiments.speed import ablation


class AblationTest(absltest.TestCase):
  def test_both_ways(self):
    settings = ablation.Settings(examples=1, rounds=1)
    found = ablation.run(settings)
    self.assertEqual((found["pictures"], found["heads"]), (5, 8))
    self.assertEqual({name: len(seconds) for name, seconds in found["seconds"].items()}, {"ours": 1, "plain loop": 1})
    self.assertLess(found["largest_difference"], 1e-4)
    with (
      mock.patch.object(ablation.estimators, "ablation", return_value=np.zeros([8, 5])),
      mock.patch.object(ablation, "plain_loop", return_value=np.ones([8, 5])),
    ):
      with self.assertRaisesRegex(ValueError, "metric: the two ways differ by .* in log_likelihood"):
        ablation.run(settings)

  def test_a_head_is_left_out(self):
    layer = {"self_attn": {"o_proj": {"kernel": jnp.ones([6, 3])}, "q_proj": 1}, "mlp": 2}
    params = {"language_model": {"layers_0": layer, "layers_1": 3}, "visual": 4}
    found = ablation.without(params, 1, 2)
    np.testing.assert_array_equal(
      found["language_model"]["layers_0"]["self_attn"]["o_proj"]["kernel"][:, 0], [1, 1, 0, 0, 1, 1]
    )
    np.testing.assert_array_equal(layer["self_attn"]["o_proj"]["kernel"], 1)
    self.assertEqual((found["visual"], found["language_model"]["layers_1"]), (4, 3))


if __name__ == "__main__":
  absltest.main()
