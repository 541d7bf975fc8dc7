"""Head importance: the estimate from ablation drops (docs/method.md), files, presets and what is refused."""

import json
import pathlib
import tempfile
import warnings

from absl.testing import absltest
from absl.testing import parameterized
import numpy as np

from hawk_jax import importance


class FromAblationTest(parameterized.TestCase):
  def test_worked_example(self):
    # Shifted by the minimum: [0, 2, 1] and [2, 0, 4]; as shares: [0, 2/3, 1/3] and [1/3, 0, 2/3].
    weights = importance.from_ablation([[1, 0], [3, -2], [2, 2]])
    np.testing.assert_allclose(weights, [1 / 6, 1 / 3, 1 / 2], rtol=1e-6)
    self.assertEqual(weights.dtype, np.float32)

  @parameterized.parameters((2, 1), (8, 6), (28, 3))
  def test_is_a_distribution_that_ignores_each_datasets_scale_and_offset(self, heads, datasets):
    rng = np.random.default_rng(heads)
    drops = rng.normal(size=[heads, datasets])
    weights = importance.from_ablation(drops)
    self.assertEqual(weights.shape, (heads,))
    self.assertTrue((weights >= 0).all())
    self.assertAlmostEqual(weights.sum(dtype=np.float64), 1.0, places=6)
    rescaled = importance.from_ablation(drops * rng.uniform(0.1, 50, datasets) + rng.normal(size=datasets))
    np.testing.assert_allclose(rescaled, weights, rtol=1e-5, atol=1e-7)

  def test_negative_drops(self):
    """Where every ablation helps, the head that helps least to lose is the most important."""
    np.testing.assert_allclose(importance.from_ablation([-3.0, -1.0, -2.0]), [0, 2 / 3, 1 / 3], rtol=1e-6)

  def test_one_dataset_as_a_vector(self):
    drops = np.array([0.5, 2.0, 1.0])
    np.testing.assert_array_equal(importance.from_ablation(drops), importance.from_ablation(drops[:, None]))

  def test_ties(self):
    np.testing.assert_allclose(importance.from_ablation([1, 0, 1, 0]), [0.5, 0, 0.5, 0], rtol=1e-6)

  def test_all_equal_dataset_is_skipped_with_a_warning(self):
    drops = np.array([[1.0, 4.0, 0.0], [2.0, 4.0, 3.0], [5.0, 4.0, 1.0]])
    with self.assertWarnsRegex(UserWarning, r"skipped datasets \[1\]"):
      weights = importance.from_ablation(drops)
    with warnings.catch_warnings():
      warnings.simplefilter("error")
      np.testing.assert_array_equal(weights, importance.from_ablation(drops[:, [0, 2]]))

  @parameterized.named_parameters(
    ("nothing_to_tell", np.ones([4, 2]), "in all 2 datasets every head has the same drop"),
    ("one_head", np.ones([1, 3]), "in all 3 datasets every head has the same drop"),
    ("nan", np.array([[1, np.nan], [2, np.inf]]), "2 values are not finite"),
    ("no_heads", np.zeros([0, 3]), r"got shape \(0, 3\)"),
    ("no_datasets", np.zeros([3, 0]), r"got shape \(3, 0\)"),
    ("three_axes", np.zeros([3, 2, 2]), r"got shape \(3, 2, 2\)"),
    ("complex", np.zeros([3, 2]) * 1j, r"got complex128 of shape \(3, 2\), must be an array of numbers"),
    ("rows_of_several_lengths", [[1], [1, 2]], "got .*, must be an array of numbers"),
    ("too_large", [1e308, -1e308], r"from -1e\+308 to 1e\+308, which is too large to add up"),
  )
  def test_refuses(self, drops, message):
    with self.assertRaisesRegex(ValueError, f"drops: .*{message}"):
      importance.from_ablation(drops)


class ValidateTest(parameterized.TestCase):
  @parameterized.parameters(([1, 2, 3],), ([[1, 0, 0], [0, 0, 5]],), ((0.0, 1e-6, 0.0),))
  def test_passes_values_through(self, weights):
    checked = importance.validate(weights, 3)
    np.testing.assert_array_equal(checked, np.asarray(weights, np.float32))
    self.assertEqual(checked.dtype, np.float32)

  @parameterized.named_parameters(
    ("wrong_length", [1.0, 2.0], "got 2 weights, the model's first layer has 4 heads"),
    ("wrong_length_in_a_batch", np.ones([4, 5]), "got 5 weights, the model's first layer has 4 heads"),
    ("negative", [1.0, -0.25, 2.0, 0.0], "must not be negative, the smallest is -0.25"),
    ("all_zero", [0.0] * 4, "all weights are zero, at least one must be positive"),
    ("all_zero_in_one_row", [[1.0] * 4, [0.0] * 4], "all weights are zero, at least one must be positive"),
    ("nan", [1.0, np.nan, 2.0, 0.0], "not finite"),
    ("infinite", [1.0, np.inf, 2.0, 0.0], "not finite"),
    ("empty", [], r"got shape \(0,\), must be \[heads\] or \[batch, heads\]"),
    ("a_number", 1.0, r"got shape \(\), must be \[heads\] or \[batch, heads\]"),
    ("three_axes", np.ones([2, 2, 4]), r"got shape \(2, 2, 4\), must be \[heads\] or \[batch, heads\]"),
  )
  def test_refuses(self, weights, message):
    with self.assertRaisesRegex(ValueError, f"head_importance: .*{message}"):
      importance.validate(weights, 4)


class LoadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    folder = tempfile.TemporaryDirectory()
    self.addCleanup(folder.cleanup)
    self.folder = pathlib.Path(folder.name)

  def write(self, content) -> str:
    path = self.folder / "weights.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)

  def test_qwen_preset(self):
    raw = importance.PRESETS["qwen2.5-vl-7b"]
    self.assertAlmostEqual(sum(raw), 1.2616, places=6)
    weights = importance.load("preset:qwen2.5-vl-7b", 28)
    self.assertEqual(weights.shape, (28,))
    self.assertAlmostEqual(float(weights.sum()), 1.0, places=6)
    self.assertAlmostEqual(float(weights[1]), 0.3 / 1.2616, places=6)
    self.assertEqual(weights.argmax(), 1)
    np.testing.assert_array_equal(np.flatnonzero(weights == 0), [26])

  def test_uniform(self):
    np.testing.assert_array_equal(importance.load("uniform", 8), np.full([8], 0.125, np.float32))
    np.testing.assert_array_equal(importance.load("uniform"), [1.0])

  @parameterized.parameters(([1, 0, 3],), ({"head_importance": [1.0, 0.0, 3.0], "model": "tiny"},))
  def test_json(self, content):
    weights = importance.load(self.write(content), 3)
    np.testing.assert_array_equal(weights, [0.25, 0, 0.75])
    self.assertEqual(weights.dtype, np.float32)

  def test_save_and_load(self):
    path = str(self.folder / "saved.json")
    importance.save(path, [0.25, 0.75], drops=[[1, 2], [3, 4]], seed=7)
    np.testing.assert_array_equal(importance.load(path, 2), [0.25, 0.75])
    content = json.loads(pathlib.Path(path).read_text())
    self.assertEqual((content["drops"], content["seed"]), ([[1, 2], [3, 4]], 7))

  def test_save_refuses_what_load_would(self):
    with self.assertRaisesRegex(ValueError, "head_importance: must not be negative"):
      importance.save(str(self.folder / "saved.json"), [-1.0, 1.0])
    self.assertEmpty(list(self.folder.iterdir()))

  @parameterized.named_parameters(
    ("not_json", "weights: 1, 2", "weights.json is not JSON"),
    ("empty_file", "", "weights.json is not JSON"),
    ("a_number", 3, "must hold a list of numbers"),
    ("other_key", {"weights": [1, 2, 3]}, "must hold a list of numbers, or an object with one under"),
    ("strings", ["1", "2", "3"], "must hold a list of numbers"),
    ("booleans", [True, False, True], "must hold a list of numbers"),
    ("nested", [[1, 2, 3]], "must hold a list of numbers"),
    ("null", [1, None, 3], "must hold a list of numbers"),
    ("no_weights", [], r"got shape \(0,\)"),
    ("wrong_length", [1, 2], "got 2 weights, the model's first layer has 3 heads"),
    ("negative", [1, -2, 3], "must not be negative, the smallest is -2"),
    ("all_zero", [0, 0, 0], "all weights are zero"),
    ("nan", "[1, NaN, 3]", "not finite"),
    ("too_large", "[1, 1e39, 3]", "not finite"),
    ("nested_too_deeply", "[" * 100_000, "weights.json is not JSON .*recursion"),
    ("number_of_too_many_digits", "[1" + "0" * 5000 + "]", "weights.json is not JSON"),
  )
  def test_refuses_file(self, content, message):
    # 1e39 is beyond float32, of which NumPy warns too.
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", RuntimeWarning)
      with self.assertRaisesRegex(ValueError, f"head_importance: .*{message}"):
        importance.load(self.write(content), 3)

  def test_refuses_what_is_no_file(self):
    for path in (self.folder / "none.json", self.folder):
      with self.assertRaisesRegex(ValueError, "head_importance: cannot read '.*give a JSON file, `uniform` or preset:"):
        importance.load(str(path))

  @parameterized.parameters(None, 3, b"uniform", [[1.0]], np.ones(3))
  def test_refuses_what_is_no_source(self, source):
    for function in (importance.load, importance.details):
      with self.assertRaisesRegex(ValueError, "head_importance: got .*, must be a JSON file, `uniform` or preset:qwen"):
        function(source)

  @parameterized.parameters("8", 0, True, 2**70)
  def test_refuses_number_of_heads(self, heads):
    with self.assertRaisesRegex(ValueError, "num_heads: got .*, must be a whole number from 1 to 65536"):
      importance.load("uniform", heads)

  def test_path(self):
    path = pathlib.Path(self.write([1, 3]))
    np.testing.assert_array_equal(importance.load(path, 2), [0.25, 0.75])

  def test_refuses_preset(self):
    with self.assertRaisesRegex(ValueError, "unknown preset 'qwen', there are: qwen2.5-vl-7b"):
      importance.load("preset:qwen")
    with self.assertRaisesRegex(ValueError, "got 28 weights, the model's first layer has 16 heads"):
      importance.load("preset:qwen2.5-vl-7b", 16)


if __name__ == "__main__":
  absltest.main()
