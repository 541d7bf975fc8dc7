"""Outcomes by teacher forcing against answers that are really decoded, for one variant and for several together."""

import dataclasses

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from experiments.estimation import data
from experiments.estimation import outcomes
from hawk_jax.pruning import Pruning
import models
from models import generation
from models.vision_language import Inputs
from tests.reference import checks
from tests.reference import llava as reference

SEEDS = np.asarray([3, 4])


class OutcomesTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = checks.load(reference, "mistral")
    inputs = cls.model.pack(**reference.batch(("two", "one")))
    features = generation.encode_pictures(cls.model, cls.params, inputs, ("sensitivity",))
    cls.vision = inputs.vision
    relevance = np.random.default_rng(0).normal(size=inputs.prompt.visual_order.shape).astype(np.float32)
    cls.batch = data.Batch(inputs.prompt, features, np.zeros([2, 3], np.int32), ["a", "b"], relevance)
    cls.weights = checks.uneven_importance(8)

  # Importance, seeds and CLIP's scores each have an influence on one of these.
  @parameterized.parameters(
    (Pruning(keep_ratio=0.5, keep_mass=0.2),),
    (Pruning(keep_ratio=0.2, selector="random"),),
    (Pruning(keep_ratio=0.2, selector="cdpruner"),),
  )
  def test_right_is_what_decoding_answers(self, pruning):
    scores = self.batch.relevance if pruning.selector == "cdpruner" else None
    out = models.generate(
      self.model,
      self.params,
      Inputs(self.batch.prompt, None),
      self.weights,
      features=self.batch.features,
      scores=scores,
      selector_seed=SEEDS,
      max_new_tokens=3,
      **dataclasses.asdict(pruning),
    )
    answers, visual = np.asarray(out.tokens), self.batch.prompt.visual_order
    shares = [np.isin(row[row >= 0], kept).mean() for row, kept in zip(visual, np.asarray(out.kept_positions))]
    wrong = answers + (np.arange(3) == 1) * (1 - 2 * (answers > 0))  # another second token
    for reference_answers, expected in ((answers, True), (wrong, False)):
      batch = dataclasses.replace(self.batch, answers=reference_answers)
      later = Pruning(keep_ratio=0.5, score_layer=1)
      variants = {
        "row": (self.weights, pruning),
        "other weights": (self.weights[::-1], pruning),
        "in the decoder": (None, Pruning(keep_ratio=0.5, selector="fastv", prune_layer=1)),
        "same tokens": (self.weights, pruning),
        "all tokens": (None, Pruning()),
      }
      if pruning.keep_mass:  # once is enough
        variants |= {f"later {number}": (np.roll(self.weights, number), later) for number in range(5)}
        variants["later, from the question"] = None, dataclasses.replace(later, head_weights="entropy")
        variants["later, in stages"] = None, Pruning(stages="input:0.5, decoder@1:0.2")
      variants = [outcomes.Variant(name, *each) for name, each in variants.items()]
      found = outcomes.measure(self.model, self.params, batch, variants, SEEDS)
      self.assertEqual([*found], [variant.name for variant in variants])
      for name in ("row", "same tokens"):
        right, kept = found[name]
        np.testing.assert_array_equal(right, [expected] * 2)
        np.testing.assert_allclose(kept, shares, rtol=1e-6)
      for variant in variants:
        alone = outcomes.outcome(self.model, self.params, batch, variant, SEEDS)
        np.testing.assert_array_equal(found[variant.name], alone, err_msg=variant.name)

  def test_settings_of_one_kind_share_what_is_timed(self):
    fixed, adaptive = Pruning(keep_ratio=0.2), Pruning(keep_ratio=0.2, keep_mass=0.2)
    variants = {
      "uniform": (None, fixed),
      "weighted": (self.weights, fixed),
      "adaptive": (None, adaptive),
      "random": (None, Pruning(keep_ratio=0.2, selector="random")),
      "in the decoder": (None, Pruning(keep_ratio=0.5, selector="fastv", prune_layer=1)),
      "measured": (None, Pruning(keep_ratio=0.2, selector="zooprune")),
    }
    batch = dataclasses.replace(self.batch, vision=self.vision)
    programs, parts = outcomes.programs(
      self.model, self.params, batch, [outcomes.Variant(name, *each) for name, each in variants.items()], SEEDS
    )
    self.assertEqual([*parts], [*variants])
    self.assertEqual(parts["uniform"], parts["weighted"])
    self.assertNotEqual(parts["uniform"], parts["adaptive"])
    [decoder] = {*parts["uniform"]} & {*parts["random"]}
    self.assertEqual([parts["uniform"][decoder], len(parts["uniform"]), len(parts["in the decoder"])], [0.5, 2, 1])
    tower = {name: number for name, number in parts["measured"].items() if name.startswith("tower")}
    self.assertEqual(tower, {"tower, sensitivity": 0.5, "tower": -0.5})
    self.assertEqual({*programs}, {name for own in parts.values() for name in own})
    for program in programs.values():
      program()


if __name__ == "__main__":
  absltest.main()
