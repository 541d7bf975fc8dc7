"""What ports measure of visual tokens while they encode pictures, against plain readings."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from models import generate
from models import generation
from models import sensitivity
from tests.reference import checks
from tests.reference import internvl
from tests.reference import llava
from tests.reference import llava_onevision
from tests.reference import qwen2_5_vl
from tests.reference import qwen3_vl

PORTS = {
  "llava": (llava, "llama", ("two", "one")),
  "llava_onevision": (llava_onevision, "untied", ("wide", "several")),
  "internvl": (internvl, "qwen2", ("tiled", "one_tile")),
  "qwen2_5_vl": (qwen2_5_vl, "gqa", ("two_images", "ragged_6x50")),
  "qwen3_vl": (qwen3_vl, "gqa", ("two_images", "large_10x14")),
}
MEASURES = ("saliency", "sensitivity")


def softmax(x):
  exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
  return exponentials / exponentials.sum(axis=-1, keepdims=True)


class MeasuresTest(parameterized.TestCase):
  def encode(self, name, cases=None, measures=MEASURES):
    reference, config, default = PORTS[name]
    model, params = checks.load(reference, config)
    inputs = model.pack(**reference.batch(cases or default))
    return model, params, inputs, generation.encode_pictures(model, params, inputs, measures)

  @parameterized.parameters(*PORTS)
  def test_measuring_does_not_change_features(self, name):
    _, _, inputs, features = self.encode(name)
    _, _, _, plain = self.encode(name, measures=())
    slots = inputs.prompt.visual_slots[inputs.prompt.visual_mask]
    np.testing.assert_allclose(features.tokens[slots], plain.tokens[slots], rtol=1e-5, atol=1e-6)
    newlines = sum(view.rows for views in inputs.views for view in views if view.newlines)
    self.assertEqual({*features.measures}, {*MEASURES})
    for values in features.measures.values():
      self.assertEqual((values.shape, values.dtype), (features.tokens.shape[:1], np.float32))
      self.assertEqual((np.asarray(values)[slots] == 0).sum(), newlines)
      self.assertTrue((np.asarray(values)[slots] >= 0).all())

  @parameterized.parameters(*PORTS)
  def test_a_picture_measures_the_same_alone(self, name):
    reference, config, cases = PORTS[name]
    model, params, inputs, together = self.encode(name)
    for row, case in enumerate(cases):
      _, _, single, alone = self.encode(name, (case,))
      real = inputs.prompt.visual_mask[row]
      for measure in MEASURES:
        np.testing.assert_allclose(
          np.asarray(together.measures[measure])[inputs.prompt.visual_slots[row][real]],
          np.asarray(alone.measures[measure])[single.prompt.visual_slots[0][single.prompt.visual_mask[0]]],
          rtol=1e-4,
        )

  def test_saliency_of_llava_is_the_class_tokens_attention(self):
    model, params, inputs, features = self.encode("llava")
    config = model.config.vision
    states = model.apply({"params": params}, inputs.vision, method=lambda module, tiles: module.vision_tower.states(tiles))
    layer = config.feature_layers[-1] - 1
    weights = params["vision_tower"]["encoder"][f"layers_{layer}"]
    x = np.asarray(states[layer], np.float64)
    norm, dense = weights["layer_norm1"], weights["self_attn"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-5)
    x = x * norm["scale"] + norm["bias"]
    project = lambda name: x @ np.asarray(dense[name]["kernel"], np.float64) + dense[name]["bias"]
    split = lambda y: y.reshape(*y.shape[:2], config.num_attention_heads, -1)
    query, key = split(project("q_proj"))[:, 0], split(project("k_proj"))
    attention = softmax(np.einsum("phd,pthd->pht", query, key) / np.sqrt(query.shape[-1])).mean(axis=1)[:, 1:]
    np.testing.assert_allclose(features.measures["saliency"], attention.reshape(-1), rtol=1e-4)

  def test_saliency_of_siglip_is_attention_and_sums_to_one(self):
    """Over the tokens of every tile."""
    model, params, inputs, _ = self.encode("llava_onevision")
    saliency = lambda module, tiles: module.vision_tower.saliency(module.vision_tower.states(tiles))
    found = model.apply({"params": params}, inputs.vision.tiles, method=saliency)
    np.testing.assert_allclose(found.sum(axis=1), 1.0, rtol=1e-5)

  def test_saliency_of_qwen_is_attention_and_sums_to_one(self):
    """Over the patches of every temporal slice, of which merged tokens hold four each."""
    model, _, inputs, features = self.encode("qwen2_5_vl")
    slices = np.asarray(inputs.vision.slice_slots)
    for slots in slices:
      slots = slots[slots >= 0]
      if slots.size:
        self.assertAlmostEqual(float(np.asarray(features.measures["saliency"])[slots].sum()) * 4, 1.0, places=4)

  @parameterized.parameters("llava", "qwen2_5_vl")
  def test_sensitivity_equals_differences(self, name):
    """The paper's formula, with a small h, in some directions."""
    model, params, inputs, _ = self.encode(name)
    x, projector = model.apply({"params": params}, inputs.vision, method=PROJECTOR_INPUT[name])
    module, variables = projector
    rng = jax.random.split(jax.random.key(0), 3)
    directions = [jax.random.normal(key, x.shape[-1:]) for key in rng]
    step = 1e-3
    lengths = [
      np.linalg.norm(
        np.asarray(module.apply(variables, x + step * u), np.float64) - module.apply(variables, x - step * u), axis=-1
      )
      / (2 * step)
      for u in directions
    ]
    found = model.apply(
      {"params": params}, inputs.vision, method=lambda port, vision: sensitivity.sensitivity(MODULE[name](port), x, 3)
    )
    real = np.asarray(x.reshape(found.size, -1) != 0).any(axis=1)
    np.testing.assert_allclose(
      np.asarray(found).reshape(-1)[real], np.mean(lengths, axis=0).reshape(-1)[real], rtol=2e-2, atol=1e-3
    )

  def test_selectors_that_need_a_measure(self):
    model, params, inputs, features = self.encode("llava")
    answer = lambda **arguments: (
      generate(model, params, inputs, keep_ratio=0.2, max_new_tokens=2, **arguments).kept_positions
    )
    for selector in ("scope", "zooprune"):
      np.testing.assert_array_equal(answer(selector=selector), answer(selector=selector, features=features))
    with self.assertRaisesRegex(ValueError, "features: they hold no saliency, which the selector scope needs"):
      answer(selector="scope", features=features.replace(measures={}))

  def test_ports_without_measures_are_refused(self):
    model, _ = checks.load(llava, "llama")
    type(model).measures, before = (), type(model).measures
    try:
      with self.assertRaisesRegex(ValueError, "selector: tops needs the saliency of visual tokens, Llava has none"):
        generation.check_measures(model, generation.Pruning(selector="tops"))
    finally:
      type(model).measures = before


MODULE = {"llava": lambda port: port.multi_modal_projector, "qwen2_5_vl": lambda port: port.visual.merger}
PROJECTOR_INPUT = {
  "llava": lambda port, vision: (port.vision_tower(vision), port.multi_modal_projector.unbind()),
  "qwen2_5_vl": lambda port, vision: (port.visual.run(vision)[0], port.visual.merger.unbind()),
}


if __name__ == "__main__":
  absltest.main()
