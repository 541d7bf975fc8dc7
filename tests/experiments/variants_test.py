"""The examples of docs/variants.md, run as they are written."""

import pathlib
import re
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments import data
from experiments import digits
from experiments import embedded
from experiments import estimators
from hawk_jax import importance
from hawk_jax import selectors
from models import generate
from models import load_model
from models import load_processor

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "variants.md"
MODEL = str(embedded.DIRECTORY / "qwen2_5_vl")


class VariantsTest(absltest.TestCase):

  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.estimator, cls.selector = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

  def test_examples_are_short(self):
    for source in (self.estimator, self.selector):
      self.assertLessEqual(len([line for line in source.splitlines() if line]), 20)

  def test_estimator(self):
    model, params = load_model(MODEL)
    examples = data.from_digits("calibration", digits.KINDS, 2)
    batch = data.make_batch(model, params, load_processor(MODEL), examples)
    raw = np.asarray(model.apply({"params": params}, batch.prompt, batch.features, method="scores"), np.float64)
    expected = np.asarray([row[:, mask].std(axis=1) for row, mask in zip(raw, batch.prompt.visual_mask)])
    with mock.patch.dict(estimators.ESTIMATORS):
      exec(self.estimator, {})
      scores = estimators.ESTIMATORS["contrast"](model, params, batch, estimators.Settings())
    np.testing.assert_allclose(scores.T, expected, atol=1e-5)
    self.assertEqual(importance.from_ablation(scores).shape, (8,))

  def test_selector(self):
    with mock.patch.dict(selectors.SELECTORS):
      exec(self.selector, {})
      model, params = load_model(MODEL)
      picture, question = digits.demo_picture()
      batch = load_processor(MODEL)(images=[[picture]], prompts=[question.text])
      inputs = model.pack(**batch)
      out = generate(model, params, inputs, selector="evenly", keep_count=10, max_new_tokens=1)
    order = np.asarray(inputs.prompt.visual_order)[0]
    kept = np.flatnonzero(np.isin(order, np.asarray(out.kept_positions)[0]))
    np.testing.assert_array_equal(kept, [-(-144 * number // 10) - 1 for number in range(1, 11)])

  def test_selector_with_ragged_rows(self):
    with mock.patch.dict(selectors.SELECTORS):
      exec(self.selector, {})
      mask = np.arange(12) < np.asarray([[12], [7], [1], [0]])
      counts = np.asarray([3, 3, 1, 0])
      kept = selectors.SELECTORS["evenly"](None, None, mask, counts, None, keep_count=4)
    np.testing.assert_array_equal(kept, [[3, 7, 11, -1], [2, 4, 6, -1], [0, -1, -1, -1], [-1, -1, -1, -1]])


if __name__ == "__main__":
  absltest.main()
