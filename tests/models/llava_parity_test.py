"""LLaVA-1.5 and LLaVA-NeXT against transformers' torch models in float32 (recorded by tests/reference/make_goldens.py)."""

import functools
import json
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from safetensors import safe_open

import models
from tests.reference import checks
from tests.reference import llava as reference

# Newer and the hub's older tensor names.
HUB_STYLE = {"llama": True, "mistral": False, "qwen2": True, "full": False, "next": True}
CASES = [dict(testcase_name=f"_{config_name}_{case}", config_name=config_name, case=case)
         for config_name, cases in reference.PARITY_CASES.items() for case in cases]


@functools.cache
def goldens():
  """The recorded arrays, and the file's metadata."""
  with safe_open(reference.GOLDENS, "numpy") as file:
    return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


@functools.cache
def load(config_name):
  """Model and parameters, by way of a checkpoint on disk."""
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name, hub_style=HUB_STYLE[config_name])
    return models.load_model(directory)


@functools.cache
def alone(config_name, case):
  """One prompt's features and logits."""
  return checks.run(*load(config_name), reference.case(case))[0]


def batch(config_name, padding="right"):
  return reference.batch(reference.PARITY_CASES[config_name], padding)


def check_row(config_name, case, features, logits):
  """Compares one prompt's features and logits with transformers'."""
  expected, _ = goldens()
  key = f"{config_name}/{case}"
  checks.close(features[reference.feature_rows(len(features))], expected[f"{key}/features"], f"{key} features")
  checks.close(logits[reference.logit_rows(len(logits))], expected[f"{key}/logits"], f"{key} logits")


class ParityTest(parameterized.TestCase):

  @parameterized.parameters(*reference.CONFIGS)
  def test_goldens_belong_to_these_weights_and_prompts(self, config_name):
    expected, metadata = goldens()
    np.testing.assert_allclose(reference.fingerprint(config_name), expected[f"{config_name}/fingerprint"], rtol=1e-5)
    self.assertEqual(json.loads(metadata["tensor_names"])[config_name],
                     sorted(reference.shapes(reference.CONFIGS[config_name])))

  @parameterized.named_parameters(*CASES)
  def test_features_and_logits(self, config_name, case):
    check_row(config_name, case, *alone(config_name, case))

  @parameterized.parameters(*reference.CONFIGS)
  def test_mixed_batch(self, config_name):
    rows = checks.run(*load(config_name), batch(config_name))
    for case, (features, logits) in zip(reference.PARITY_CASES[config_name], rows, strict=True):
      check_row(config_name, case, features, logits)
      own_features, own_logits = alone(config_name, case)
      checks.close(features, own_features, f"{case} features")
      checks.close(logits, own_logits, f"{case} logits")

  @parameterized.parameters(*reference.CONFIGS)
  def test_greedy_tokens_of_mixed_batch(self, config_name):
    tokens = checks.answer(*load(config_name), batch(config_name), reference.NEW_TOKENS)
    for case, row in zip(reference.PARITY_CASES[config_name], tokens, strict=True):
      np.testing.assert_array_equal(row, goldens()[0][f"{config_name}/{case}/tokens"], err_msg=case)

  @parameterized.parameters(("llama", "one"), ("llama", "two"), ("next", "two_tilings"))
  def test_greedy_tokens(self, config_name, case):
    tokens = checks.answer(*load(config_name), reference.case(case), reference.NEW_TOKENS)
    np.testing.assert_array_equal(tokens[0], goldens()[0][f"{config_name}/{case}/tokens"])

  @parameterized.parameters("llama", "next")
  def test_padding_on_the_left_packs_the_same(self, config_name):
    model, _ = load(config_name)
    right, left = (model.pack(**batch(config_name, padding)) for padding in ("right", "left"))
    jax.tree.map(np.testing.assert_array_equal, left, right)


if __name__ == "__main__":
  absltest.main()
