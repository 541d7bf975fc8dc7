"""Estimators of head importance against a decoder in NumPy, head by head and prompt by prompt, and against plain loops."""

from absl.testing import absltest
from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from experiments.digits import embedded
from experiments.digits import task
from experiments.estimation import data
from experiments.estimation import estimators
from models import generation
from models import load_model
from models import load_processor
from tests.reference import checks
from tests.reference import llava
from tests.reference import numpy_decoder
from tests.reference import numpy_hawk
from tests.reference import qwen3_vl

ANSWERS = np.asarray([[17, 4, 60], [90, 33, -1]], np.int32)


class TinyTestCase(parameterized.TestCase):
  """A tiny random model, with 8 query heads over 2 key heads."""

  reference, config_name, prompts = llava, "mistral", ("two", "one")

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.model, cls.params = checks.load(cls.reference, cls.config_name)
    arrays = cls.reference.batch(cls.prompts)
    cls.inputs = cls.model.pack(**arrays)
    cls.features = generation.encode(cls.params, cls.inputs.vision, model=cls.model)
    cls.text = cls.model.config.text
    cls.rows = checks.merged(cls.model, cls.params, arrays)

  def batch(self, answers=ANSWERS):
    return data.Batch(self.inputs.prompt, self.features, answers, ["a", "b"])

  def plain(self, number, answers=ANSWERS, **intervention):
    row, answer = self.rows[number], answers[number]
    answer = answer[answer >= 0]
    return numpy_decoder.judge(self.params, self.text, row.embeddings, row.positions, answer, row.levels, **intervention)

  def gates(self, head, scope, value=0.0):
    gates = np.ones([self.text.num_hidden_layers, self.text.num_attention_heads])
    gates[: 1 if scope == "first_layer" else None, head] = value
    return gates

  def drops(self, scope, mode, part, answers):
    found = np.zeros([self.text.num_attention_heads, 2])
    for number, row in enumerate(self.rows):
      hidden = row.ids == self.reference.IMAGE if mode == "mask_visual" else None
      base = self.plain(number, answers)[part]
      for head in range(len(found)):
        found[head, number] = base - self.plain(number, answers, gates=self.gates(head, scope), hidden=hidden)[part]
    return found

  def check_ablation(self, scope, mode):
    settings = estimators.Settings(scope=scope, mode=mode, metric="log_likelihood")
    found = estimators.ablation(self.model, self.params, self.batch(), settings)
    expected = self.drops(scope, mode, 0, ANSWERS)
    np.testing.assert_allclose(found, expected, atol=2e-4)
    self.assertGreater(np.abs(expected).max(), 0.01)


class DeepStackTest(TinyTestCase):
  """Qwen3-VL."""

  reference, config_name, prompts = qwen3_vl, "gqa", ("two_images", "wide_4x20")

  def test_ablation_of_likelihood(self):
    self.check_ablation("all_layers", "mask_visual")


class TinyTest(TinyTestCase):
  """LLaVA."""

  @parameterized.product(scope=["first_layer", "all_layers"], mode=["zero_output", "mask_visual"])
  def test_ablation_of_likelihood(self, scope, mode):
    self.check_ablation(scope, mode)

  def test_heads_at_once(self):
    settings = [estimators.Settings(metric="log_likelihood", heads_at_once=count) for count in (None, 4)]
    one, several = (estimators.ablation(self.model, self.params, self.batch(), chosen) for chosen in settings)
    np.testing.assert_allclose(one, several, rtol=1e-5, atol=1e-5)

  def test_ablation_of_accuracy(self):
    # What the unpruned model answers is right until an ablation changes it.
    out = generation.generate(self.model, self.params, self.inputs, max_new_tokens=3)
    answers = np.asarray(out.tokens)
    settings = estimators.Settings(scope="all_layers")
    found = estimators.ablation(self.model, self.params, self.batch(answers), settings)
    np.testing.assert_array_equal(found, self.drops("all_layers", "zero_output", 1, answers))
    self.assertEqual({*found.ravel()}, {0.0, 1.0})

  def test_gradient_is_the_slope_at_the_gate(self):
    found = estimators.gradient(self.model, self.params, self.batch(), estimators.Settings())
    for head in range(self.text.num_attention_heads):
      for number in range(2):
        above, below = (self.plain(number, gates=self.gates(head, "first_layer", 1 + step))[0] for step in (1e-4, -1e-4))
        self.assertAlmostEqual(found[head, number], (above - below) / 2e-4, delta=2e-3)

  def test_attention_mass(self):
    found = estimators.attention_mass(self.model, self.params, self.batch(), estimators.Settings())
    for number, row in enumerate(self.rows):
      _, weights = numpy_decoder.run(self.params, self.text, row.embeddings, row.positions)
      visual = row.ids == self.reference.IMAGE
      query = np.arange(len(row.ids)) > np.flatnonzero(visual)[-1]
      np.testing.assert_allclose(found[:, number], weights[:, query][..., visual].sum(-1).mean(-1), atol=1e-5)

  def test_attention_mass_of_a_later_layer(self):
    found = estimators.attention_mass(self.model, self.params, self.batch(), estimators.Settings(score_layer=1))
    for number, row in enumerate(self.rows):
      _, weights = numpy_decoder.run(self.params, self.text, row.embeddings, row.positions, layer=1)
      visual = row.ids == self.reference.IMAGE
      query = np.arange(len(row.ids)) > np.flatnonzero(visual)[-1]
      np.testing.assert_allclose(found[:, number], weights[:, query][..., visual].sum(-1).mean(-1), atol=1e-5)

  def test_ablation_of_a_later_layer(self):
    settings = estimators.Settings(metric="log_likelihood", score_layer=1)
    found = estimators.ablation(self.model, self.params, self.batch(), settings)
    gates = self.gates(3, "first_layer")[::-1]
    for number in range(2):
      drop = self.plain(number)[0] - self.plain(number, gates=gates)[0]
      self.assertAlmostEqual(found[3, number], drop, delta=2e-4)

  def test_question_sensitivity(self):
    """One picture's tokens under its own question and under the other row's."""
    found = estimators.question_sensitivity(self.model, self.params, self.batch(), estimators.Settings())
    weights = self.params["language_model"]["layers_0"]
    normed = [
      numpy_hawk.rms_norm(row.embeddings, weights["input_layernorm"]["scale"], self.text.rms_norm_eps) for row in self.rows
    ]
    kernel = lambda name: np.asarray(weights["self_attn"][name]["kernel"]).T
    heads = self.text.num_attention_heads, self.text.num_key_value_heads

    def scores(question, picture):
      ids = self.rows[question].ids
      query = numpy_hawk.query_tokens(ids, (self.reference.IMAGE,), None, None)
      visual = normed[picture][self.rows[picture].ids == self.reference.IMAGE]
      return numpy_hawk.head_scores(normed[question][query], visual, kernel("q_proj"), kernel("k_proj"), None, None, *heads)

    for number in range(2):
      own, other = scores(number, number), scores(1 - number, number)
      expected = [1 - np.corrcoef(first, second)[0, 1] for first, second in zip(own, other)]
      np.testing.assert_allclose(found[:, number], expected, atol=1e-4)

  def test_question_sensitivity_of_a_later_layer(self):
    found = estimators.question_sensitivity(self.model, self.params, self.batch(), estimators.Settings(score_layer=1))
    own = self.inputs.prompt
    other = own.replace(text_tokens=own.text_tokens[::-1], query_mask=own.query_mask[::-1])
    scores = [
      np.asarray(self.model.apply({"params": self.params}, each, self.features, 1, method="scores")) for each in (own, other)
    ]
    for number in range(2):
      pairs = zip(*(each[number][:, own.visual_mask[number]] for each in scores))
      expected = [1 - np.corrcoef(first, second)[0, 1] for first, second in pairs]
      np.testing.assert_allclose(found[:, number], expected, atol=1e-4)

  def test_every_estimator_reads_its_own_settings(self):
    for name in ("ablation", "gradient", "attention_mass", "question_sensitivity", "learned"):
      estimators.check_read(name, estimators.Settings(score_layer=1, seed=3, heads_at_once=2))


class EmbeddedTest(parameterized.TestCase):
  """The embedded Qwen2.5-VL, whose layers have biases and mRoPE."""

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    directory = str(embedded.DIRECTORY / "qwen2_5_vl")
    cls.model, cls.params = load_model(directory)
    cls.processor = load_processor(directory)
    cls.examples = data.from_digits("calibration", task.KINDS, 1)
    cls.batch = data.make_batch(cls.model, cls.params, cls.processor, cls.examples)

  def without(self, head, layers):
    """Parameters whose output projection ignores a head: ablation with no gate anywhere."""
    params = jax.tree.map(np.array, self.params)
    size = self.model.config.text.head_dim
    for layer in layers:
      params["language_model"][f"layers_{layer}"]["self_attn"]["o_proj"]["kernel"][head * size : (head + 1) * size] = 0
    return params

  def log_likelihoods(self, params):
    """By decoding with the logits kept, forced along the reference: one example and one token at a time."""
    found = []
    for row, example in enumerate(self.examples):
      arrays = self.processor(images=[[example.picture]], prompts=[example.question])
      total, ids = 0.0, np.asarray(arrays["input_ids"])
      for token in self.batch.answers[row, self.batch.answers[row] >= 0]:
        inputs = self.model.pack(**{**arrays, "input_ids": ids, "attention_mask": np.ones_like(ids)})
        out = generation.generate(self.model, params, inputs, max_new_tokens=1, return_logits=True)
        total += float(jax.nn.log_softmax(out.logits[0, 0])[token])
        ids = np.concatenate([ids, [[token]]], axis=1)
      found.append(total)
    return np.asarray(found)

  def test_ablation_equals_weights_without_the_head(self):
    whole = self.log_likelihoods(self.params)
    for scope, head, layers in (("first_layer", 3, 1), ("all_layers", 6, self.model.config.text.num_hidden_layers)):
      with self.subTest(scope):
        settings = estimators.Settings(scope=scope, metric="log_likelihood")
        drops = estimators.ablation(self.model, self.params, self.batch, settings)
        self.assertEqual(drops.shape, (8, len(self.examples)))
        expected = whole - self.log_likelihoods(self.without(head, range(layers)))
        np.testing.assert_allclose(drops[head], expected, atol=2e-4)

  def test_heads_at_once_changes_nothing(self):
    every, few = (
      estimators.ablation(
        self.model, self.params, self.batch, estimators.Settings(metric="log_likelihood", heads_at_once=count)
      )
      for count in (None, 2)
    )
    np.testing.assert_allclose(every, few, rtol=1e-5, atol=1e-5)

  def test_gradient_is_the_slope(self):
    slope = estimators.gradient(self.model, self.params, self.batch, estimators.Settings())
    arrays, size = (self.batch.prompt, self.batch.features, self.batch.answers), 1e-2
    likelihood = jax.jit(
      lambda gate: (
        estimators._verdict(
          self.params, arrays, gate, model=self.model, scope="first_layer", mode="zero_output"
        ).log_likelihood
      )
    )
    for head in (0, 7):
      step = size * jnp.eye(8)[head]
      difference = (likelihood(jnp.ones([5, 8]) + step) - likelihood(jnp.ones([5, 8]) - step)) / (2 * size)
      np.testing.assert_allclose(slope[head], difference, atol=1e-2, rtol=2e-2)

  def test_attention_mass_is_a_share(self):
    mass = estimators.attention_mass(self.model, self.params, self.batch, estimators.Settings())
    self.assertEqual(mass.shape, (8, len(self.examples)))
    config = self.model.config
    arrays = self.processor(
      images=[[example.picture] for example in self.examples], prompts=[example.question for example in self.examples]
    )
    end_of_message = self.processor.tokenizer.convert_tokens_to_ids("<|im_end|>")
    for number, row in enumerate(checks.merged(self.model, self.params, arrays)):
      _, weights = numpy_decoder.run(self.params, config.text, row.embeddings, row.positions)
      query = numpy_hawk.query_tokens(row.ids, [config.image_token_id], config.vision_end_token_id, end_of_message)
      visual = row.ids == config.image_token_id
      np.testing.assert_allclose(mass[:, number], weights[:, query][..., visual].sum(-1).mean(-1), atol=1e-5)
    self.assertGreater(np.ptp(mass), 0.1)

  def test_mask_visual_hides_the_picture_from_the_head(self):
    zero, masked = (
      estimators.ablation(self.model, self.params, self.batch, estimators.Settings(mode=mode, metric="log_likelihood"))
      for mode in ("zero_output", "mask_visual")
    )
    self.assertGreater(np.abs(zero - masked).max(), 1e-3)


class TableTest(parameterized.TestCase):
  def test_fixed_weights(self):
    estimate = lambda name, **settings: estimators.find(name).estimate(8, estimators.Settings(**settings)).weights
    np.testing.assert_array_equal(estimate("uniform"), np.full(8, 1 / 8))
    np.testing.assert_array_equal(estimate("one_hot:3"), np.eye(8)[3])
    first, again, other = estimate("random"), estimate("random"), estimate("random", seed=1)
    np.testing.assert_array_equal(first, again)
    self.assertAlmostEqual(float(first.sum()), 1.0, places=6)
    self.assertGreater(np.abs(first - other).max(), 0.01)

  @parameterized.parameters("gradients", "one_hot", "uniform:3", "uniform:", "")
  def test_unknown_names(self, name):
    with self.assertRaisesRegex(ValueError, f"estimator: got '{name}', allowed are ablation, .*, one_hot:HEAD"):
      estimators.find(name)

  @parameterized.parameters("one_hot:8", "one_hot:-1", "one_hot:x", "one_hot:")
  def test_unknown_heads(self, name):
    with self.assertRaisesRegex(ValueError, f"estimator: got {name}, the model's first layer has heads 0 to 7"):
      estimators.find(name).estimate(8, estimators.Settings())

  def test_means_and_weights(self):
    labels, scores = np.asarray(["b", "a", "b"]), np.asarray([[1.0, 2.0], [5.0, 5.0], [3.0, 8.0]])
    means = estimators.mean_scores(labels, scores)
    self.assertEqual({name: values.tolist() for name, values in means.items()}, {"b": [2.0, 5.0], "a": [5.0, 5.0]})
    self.assertEqual(estimators.skipped(means), ["a"])
    np.testing.assert_array_equal(estimators.weights_of(means), [0.0, 1.0])

  @parameterized.parameters(("scope", "layer"), ("steps", 0), ("keep_ratio", 0.0), ("keep_ratio", 1.1), ("heads_at_once", 0))
  def test_settings_that_are_not_allowed(self, name, value):
    with self.assertRaisesRegex(ValueError, f"{name}: got {value!r}"):
      estimators.Settings(**{name: value})


if __name__ == "__main__":
  absltest.main()
