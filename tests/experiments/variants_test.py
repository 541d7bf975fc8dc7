"""The examples of docs/variants.md, each in a file of its own, exactly as they are written."""

import importlib.util
import pathlib
import re
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments import head_importance
from experiments.digits import embedded
from experiments.digits import task
from experiments.estimation import data
from experiments.estimation import estimators
from hawk_jax import importance
from hawk_jax import selectors
from models import generate
from models import load_model
from models import load_processor
from models import stages
from tests.reference import checks
from tests.reference import llava

DOCUMENT = pathlib.Path(__file__).parents[2] / "docs" / "variants.md"
MODEL = str(embedded.DIRECTORY / "qwen2_5_vl")


class VariantsTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.estimator, cls.selector, cls.stage = re.findall(r"```python\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)

  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))
    self.enter_context(mock.patch.dict(estimators.ESTIMATORS))
    self.enter_context(mock.patch.dict(selectors.SELECTORS))
    self.enter_context(mock.patch.dict(stages.SCORES))

  def import_as_file(self, source):
    path = self.directory / "variant.py"
    path.write_text(source)
    spec = importlib.util.spec_from_file_location("variant", path)
    spec.loader.exec_module(importlib.util.module_from_spec(spec))

  def test_examples_are_short(self):
    for source in (self.estimator, self.selector, self.stage):
      self.assertLessEqual(len([line for line in source.splitlines() if line]), 20)

  def test_stage(self):
    model, params = checks.load(llava, "llama")
    inputs = model.pack(**llava.batch(("two",)))
    answer = lambda: generate(model, params, inputs, stages="decoder@1:0.25/small", max_new_tokens=1)
    with self.assertRaisesRegex(ValueError, "got 'small', allowed are"):
      answer()
    self.import_as_file(self.stage)
    visual = np.isin(np.asarray(answer().kept_positions[0]), np.asarray(inputs.prompt.visual_order[0]))
    self.assertEqual(visual.sum(), 18)  # of 72

  def test_estimator(self):
    with self.assertRaisesRegex(ValueError, "estimator: got 'contrast', allowed are"):
      head_importance.Settings(estimator="contrast")
    self.import_as_file(self.estimator)
    weights = head_importance.run(
      head_importance.Settings(model=MODEL, estimator="contrast", examples=2, batch_size=10, output_dir=str(self.directory))
    )

    model, params = load_model(MODEL)
    examples = data.from_digits("calibration", task.KINDS, 2)
    batch = data.make_batch(model, params, load_processor(MODEL), examples)
    raw = np.asarray(model.apply({"params": params}, batch.prompt, batch.features, method="scores"), np.float64)
    expected = np.asarray([row[:, mask].std(axis=1) for row, mask in zip(raw, batch.prompt.visual_mask)])
    scores = estimators.ESTIMATORS["contrast"].function(model, params, batch, estimators.Settings())
    np.testing.assert_allclose(scores.T, expected, atol=1e-5)
    kinds = np.asarray(batch.datasets)
    means = np.stack([expected[kinds == kind].mean(axis=0) for kind in task.KINDS], axis=1)
    np.testing.assert_allclose(weights, importance.from_ablation(means), atol=1e-5)
    np.testing.assert_allclose(importance.load(self.directory / "head_importance.json", 8), weights, rtol=1e-5)

  def test_selector(self):
    self.import_as_file(self.selector)
    model, params = load_model(MODEL)
    picture, question = task.demo_picture()
    batch = load_processor(MODEL)(images=[[picture]], prompts=[question.text])
    inputs = model.pack(**batch)
    out = generate(model, params, inputs, selector="evenly", keep_count=10, max_new_tokens=1)
    order = np.asarray(inputs.prompt.visual_order)[0]
    kept = np.flatnonzero(np.isin(order, np.asarray(out.kept_positions)[0]))
    np.testing.assert_array_equal(kept, [-(-144 * number // 10) - 1 for number in range(1, 11)])

  def test_selector_with_ragged_rows(self):
    self.import_as_file(self.selector)
    mask = np.arange(12) < np.asarray([[12], [7], [1], [0]])
    counts = np.asarray([3, 3, 1, 0])
    kept = selectors.SELECTORS["evenly"](None, None, mask, counts, None, keep_count=4)
    np.testing.assert_array_equal(kept, [[3, 7, 11, -1], [2, 4, 6, -1], [0, -1, -1, -1], [-1, -1, -1, -1]])


if __name__ == "__main__":
  absltest.main()
