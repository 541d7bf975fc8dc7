"""Checkpoints as they come: names old and new, configs flat and nested, one file or many, and broken ones."""

import json
import os
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from models import load_model
from models.checkpoints import hf
from models.checkpoints import params as params_lib
from tests.reference import qwen2_5_vl as reference


def assert_trees_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


class CheckpointTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def write(self, config="gqa", **arguments):
    reference.write_checkpoint(self.directory, config, **arguments)

  def rewrite(self, change):
    """Applies `change` to the tensors on disk."""
    tensors = reference.weights(reference.CONFIGS["gqa"])
    change(tensors)
    save_file(tensors, self.directory / "model.safetensors")

  def test_names_and_configs_of_all_ages_load_the_same(self):
    self.write()
    model, params = load_model(self.directory)
    self.write(hub_style=True)
    hub_model, hub_params = load_model(self.directory)
    self.assertEqual(model, hub_model)
    assert_trees_equal(params, hub_params)

  def test_values_and_layout(self):
    self.write()
    _, params = load_model(self.directory)
    tensors = reference.weights(reference.CONFIGS["gqa"])
    np.testing.assert_array_equal(
      params["language_model"]["layers_1"]["mlp"]["up_proj"]["kernel"],
      tensors["model.language_model.layers.1.mlp.up_proj.weight"].T,
    )
    patch = tensors["model.visual.patch_embed.proj.weight"]
    np.testing.assert_array_equal(params["visual"]["patch_embed"]["proj"]["kernel"], patch.reshape(len(patch), -1).T)
    np.testing.assert_array_equal(
      params["language_model"]["embed_tokens"]["embedding"], tensors["model.language_model.embed_tokens.weight"]
    )

  def test_shards(self):
    self.write()
    _, params = load_model(self.directory)
    tensors = reference.weights(reference.CONFIGS["gqa"])
    (self.directory / "model.safetensors").unlink()
    names, files = sorted(tensors), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    halves = names[:20], names[20:]
    for file, half in zip(files, halves):
      save_file({name: tensors[name] for name in half}, self.directory / file)
    index = {"weight_map": {name: file for file, half in zip(files, halves) for name in half}}
    (self.directory / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_trees_equal(load_model(self.directory)[1], params)
    (self.directory / files[1]).unlink()
    with self.assertRaisesRegex(ValueError, f"lacks files that its index names: {files[1]}"):
      load_model(self.directory)

  @parameterized.parameters(
    ("[1]", r"must hold a JSON object, got \[1\]"),
    ("{", "is not JSON"),
    ("{}", "weight_map: got None, must be an object: tensor to file"),
    ('{"weight_map": ["a"]}', r"weight_map: got \['a'\], must be an object"),
    ('{"weight_map": {"a": 1}}', "weight_map of 'a': got 1, must be a .safetensors file in the same directory"),
    ('{"weight_map": {"a": null}}', "weight_map of 'a': got None, must be"),
    ('{"weight_map": {"a": ["x"]}}', r"weight_map of 'a': got \['x'\], must be"),
    ('{"weight_map": {"a": "../other/model.safetensors"}}', "weight_map of 'a': got '../other/model.safetensors', must be"),
    ('{"weight_map": {"a": "/etc/model.safetensors"}}', "weight_map of 'a': got '/etc/model.safetensors', must be"),
    ('{"weight_map": {"a": "model.bin"}}', "weight_map of 'a': got 'model.bin', must be"),
  )
  def test_index_that_is_refused(self, content, message):
    self.write()
    (self.directory / "model.safetensors.index.json").write_text(content)
    with self.assertRaisesRegex(ValueError, f"model: .*/model.safetensors.index.json:? {message}"):
      load_model(self.directory)

  @parameterized.parameters("float32", "bfloat16", "float16")
  def test_stored_dtypes(self, dtype):
    self.write()
    kind = params_lib.DTYPES[dtype]
    self.rewrite(lambda tensors: tensors.update({name: value.astype(kind) for name, value in tensors.items()}))
    _, params = load_model(self.directory)
    expected = reference.weights(reference.CONFIGS["gqa"])["model.language_model.norm.weight"]
    actual = params["language_model"]["norm"]["scale"]
    self.assertEqual(actual.dtype, np.float32)
    np.testing.assert_array_equal(actual, expected.astype(kind).astype(np.float32))

  def test_compute_dtype(self):
    self.write()
    _, params = load_model(self.directory, dtype="bfloat16")
    self.assertEqual({x.dtype for x in jax.tree.leaves(params)}, {np.dtype(ml_dtypes.bfloat16)})
    with self.assertRaisesRegex(ValueError, "dtype: got 'int8', allowed are float32, bfloat16, float16"):
      load_model(self.directory, dtype="int8")

  def test_one_error_lists_every_tensor_that_does_not_fit(self):
    self.write()

    def change(tensors):
      del tensors["model.language_model.layers.0.mlp.up_proj.weight"]
      del tensors["model.visual.merger.mlp.2.bias"]
      tensors["model.visual.extra.weight"] = np.zeros([2], np.float32)
      tensors["lm_head.weight"] = np.zeros([7, 64], np.float32)

    self.rewrite(change)
    with self.assertRaises(ValueError) as raised:
      load_model(self.directory)
    message = str(raised.exception)
    for line in (
      "missing: model.language_model.layers.0.mlp.up_proj.weight",
      "missing: model.visual.merger.mlp.2.bias",
      "unexpected: model.visual.extra.weight",
      "wrong shape: lm_head.weight is [7, 64], the config asks for [160, 64]",
    ):
      self.assertIn(line, message)

  def test_transposed_tensor_is_the_wrong_shape(self):
    self.write()
    name = "model.language_model.layers.0.mlp.up_proj.weight"
    self.rewrite(lambda tensors: tensors.update({name: np.ascontiguousarray(tensors[name].T)}))
    with self.assertRaisesRegex(ValueError, f"wrong shape: {name}"):
      load_model(self.directory)

  def test_one_tensor_under_two_names(self):
    self.write()
    self.rewrite(lambda tensors: tensors.update({"model.norm.weight": tensors["model.language_model.norm.weight"]}))
    with self.assertRaisesRegex(ValueError, "twice: model"):
      load_model(self.directory)

  def test_tied_head_may_be_stored_all_the_same(self):
    self.write("mha_tied")
    tensors = reference.weights(reference.CONFIGS["mha_tied"])
    tensors["lm_head.weight"] = tensors["model.language_model.embed_tokens.weight"]
    save_file(tensors, self.directory / "model.safetensors")
    self.assertNotIn("lm_head", load_model(self.directory)[1])
    tensors["lm_head.weight"] = 2 * tensors["lm_head.weight"]
    save_file(tensors, self.directory / "model.safetensors")
    with self.assertRaisesRegex(ValueError, "contradiction: lm_head.weight is not the embedding table, .* tie_word_emb"):
      load_model(self.directory)

  def test_pickles_are_refused(self):
    self.write()
    (self.directory / "model.safetensors").rename(self.directory / "pytorch_model.bin")
    with self.assertRaisesRegex(ValueError, "only pickled weights .pytorch_model.bin."):
      load_model(self.directory)

  def test_truncated_file(self):
    self.write()
    path = self.directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with self.assertRaisesRegex(ValueError, "model.safetensors is not a complete safetensors file"):
      load_model(self.directory)

  def test_no_weights(self):
    self.write()
    (self.directory / "model.safetensors").unlink()
    with self.assertRaisesRegex(ValueError, "has no .safetensors file"):
      load_model(self.directory)

  def test_config_missing_or_unknown(self):
    with self.assertRaisesRegex(ValueError, "has no config.json"):
      load_model(self.directory)
    (self.directory / "config.json").write_text("{")
    with self.assertRaisesRegex(ValueError, "config.json is not JSON"):
      load_model(self.directory)
    (self.directory / "config.json").write_text('{"model_type": "bert"}')
    with self.assertRaisesRegex(ValueError, "model_type 'bert', supported are .*qwen2_5_vl"):
      load_model(self.directory)

  @parameterized.parameters(
    (("text_config", "hidden_act"), "gelu", "hidden_act is 'gelu'"),
    (("text_config", "hidden_size"), "big", "config.json: .*hidden_size"),
    (("text_config", "rope_parameters"), {"rope_type": "yarn", "factor": 2.0, "rope_theta": 1e4}, "rope_type is 'yarn'"),
  )
  def test_config_values_that_are_not_supported(self, path, value, message):
    config = json.loads(json.dumps(reference.CONFIGS["gqa"]))
    config[path[0]][path[1]] = value
    (self.directory / "config.json").write_text(json.dumps(config))
    with self.assertRaisesRegex(ValueError, message):
      load_model(self.directory)

  def test_hub_id_from_local_cache(self):
    cache = self.directory / "hub"
    revision = "0" * 40
    snapshot = cache / "models--owner--tiny" / "snapshots" / revision
    snapshot.mkdir(parents=True)
    reference.write_checkpoint(snapshot, "gqa")
    refs = cache / "models--owner--tiny" / "refs"
    refs.mkdir()
    (refs / "main").write_text(revision)
    with (
      mock.patch("huggingface_hub.constants.HF_HUB_CACHE", str(cache)),
      mock.patch("huggingface_hub.constants.HF_HUB_OFFLINE", True),
    ):
      model, _ = load_model("owner/tiny")
      self.assertEqual(model.config.text.hidden_size, 64)
      with self.assertRaisesRegex(ValueError, "no directory 'owner/absent', and no model of that name could be downloaded"):
        load_model("owner/absent")

  def test_neither_directory_nor_hub_id(self):
    with self.assertRaisesRegex(ValueError, "no directory '/no/such/place', and it is not a hub id"):
      load_model("/no/such/place")
    with self.assertRaisesRegex(ValueError, "is a file"):
      load_model(os.path.abspath(__file__))

  def test_save_and_load(self):
    self.write()
    model, params = load_model(self.directory)
    hf.save(self.directory, model, params)
    assert_trees_equal(load_model(self.directory)[1], params)


if __name__ == "__main__":
  absltest.main()
