"""From Hugging Face to Orbax: the same parameters, and nothing that loads until all are there."""

import itertools
import os
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util
import jax
import numpy as np

from experiments import convert
from experiments.running import conversion
from experiments.running import journal
from models import load_model
from models import sharding
from models.checkpoints import hf
from models.checkpoints import orbax
from tests.reference import internvl
from tests.reference import llava as reference
from tests.reference import qwen3_vl


class Killed(BaseException):
  pass


def assert_trees_equal(actual, expected):
  assert jax.tree.structure(actual) == jax.tree.structure(expected)
  jax.tree.map(np.testing.assert_array_equal, actual, expected)


class ConvertTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.source, self.output = self.directory / "source", self.directory / "output"
    self.source.mkdir()
    reference.write_checkpoint(self.source, "mistral")

  def test_killed_at_every_moment(self):
    save, calls = orbax.save_group, itertools.count()

    def save_or_die(partial, name, params):
      number = next(calls)
      if number == 3:
        (partial / "params" / f"{name}.orbax-checkpoint-tmp").mkdir(parents=True)  # as Orbax leaves it
        raise Killed
      save(partial, name, params)
      if number == 5:
        raise Killed

    with mock.patch.object(orbax, "save_group", save_or_die):
      for _ in range(2):
        with self.assertRaises(Killed):
          conversion.convert(self.source, self.output, None)
        self.assertFalse(self.output.exists())
        with self.assertRaisesRegex(ValueError, "has no config.json"):
          load_model(self.output.with_name("output.partial"))
    with mock.patch.object(conversion.files, "write", side_effect=Killed), self.assertRaises(Killed):
      conversion.convert(self.source, self.output, None)
    self.assertFalse(self.output.exists())
    with self.assertRaisesRegex(ValueError, "has no .safetensors file"):
      load_model(self.output.with_name("output.partial"))
    conversion.convert(self.source, self.output, None)
    self.assertFalse(self.output.with_name("output.partial").exists())
    self.assertEmpty(list(self.output.glob("params/*tmp*")))
    model, params = load_model(self.output)
    expected_model, expected = load_model(self.source)
    self.assertEqual(model, expected_model)
    assert_trees_equal(params, expected)

  def test_a_conversion_that_is_complete(self):
    self.assertTrue(conversion.convert(self.source, self.output, None))
    with mock.patch.object(hf, "read_param", side_effect=Killed):
      self.assertFalse(conversion.convert(self.source, self.output, None))
      convert.run(convert.Settings(model=str(self.source), output_dir=str(self.output)))
      with self.assertRaisesRegex(
        ValueError, "output_dir: .*output/conversion.jsonl belongs to a run with other dtype; give"
      ):
        conversion.convert(self.source, self.output, "float16")
      os.utime(self.source / "model.safetensors", (1, 1))
      with self.assertRaisesRegex(ValueError, "output_dir: .*output/conversion.jsonl belongs to a run with other weights"):
        conversion.convert(self.source, self.output, None)
    self.assertFalse(self.output.with_name("output.partial").exists())

  def test_something_else_in_the_way(self):
    self.output.mkdir()
    (self.output / "config.json").touch()
    with self.assertRaisesRegex(ValueError, "output_dir: .*output exists already; remove it or give another"):
      conversion.convert(self.source, self.output, None)
    with self.assertRaisesRegex(ValueError, "output_dir: .*config.json exists already"):
      conversion.convert(self.source, self.output / "config.json", None)

  def test_a_full_disk_keeps_the_layers_that_are_there(self):
    free, calls = shutil.disk_usage(self.directory), itertools.count()
    usage = lambda path: free._replace(free=0 if next(calls) == 3 else free.free)
    with mock.patch.object(shutil, "disk_usage", usage):
      with self.assertRaisesRegex(OSError, "No space left on device: '.*output.partial'"):
        conversion.convert(self.source, self.output, None)
    partial = self.output.with_name("output.partial")
    self.assertLen(journal.read(partial / "conversion.jsonl"), 3)
    with mock.patch.object(orbax, "save_group", wraps=orbax.save_group) as save:
      conversion.convert(self.source, self.output, None)
    self.assertEqual(save.call_count, len(journal.read(self.output / "conversion.jsonl")) - 3)

  def test_dtypes_and_meshes(self):
    settings = convert.Settings(model=str(self.source), output_dir=str(self.output), dtype="bfloat16")
    self.assertEqual(convert.run(settings), self.output)
    _, params = load_model(self.source, dtype="bfloat16")
    assert_trees_equal(load_model(self.output, dtype="bfloat16")[1], params)
    mesh = sharding.make_mesh(None, jax.devices()[:1])
    _, spread = load_model(self.output, mesh, "bfloat16")
    assert_trees_equal(spread, params)
    self.assertEqual(spread["lm_head"]["kernel"].sharding.spec, jax.sharding.PartitionSpec("fsdp", "tensor"))

  @parameterized.parameters((internvl, "qwen2"), (qwen3_vl, "tied"))
  def test_other_ports(self, reference, config_name):
    reference.write_checkpoint(self.source, config_name)
    conversion.convert(self.source, self.output, None)
    expected_model, expected = load_model(self.source)
    model, params = load_model(self.output)
    self.assertEqual(model, expected_model)
    assert_trees_equal(params, expected)

  def test_both_directories_must_be_given(self):
    with self.assertRaisesRegex(ValueError, "model: must be given"):
      convert.Settings(output_dir="out")
    with self.assertRaisesRegex(ValueError, "output_dir: must be given"):
      convert.Settings(model="in")

  def test_another_conversion_in_the_way(self):
    with mock.patch.object(orbax, "save_group", side_effect=Killed), self.assertRaises(Killed):
      conversion.convert(self.source, self.output, None)
    with self.assertRaisesRegex(ValueError, "output_dir: .* belongs to a run with other dtype"):
      conversion.convert(self.source, self.output, "float16")

  def test_one_error_lists_all_that_does_not_fit(self):
    conversion.convert(self.source, self.output, None)
    path = self.output / "config.json"
    path.write_text(path.read_text().replace('"intermediate_size": 112', '"intermediate_size": 96'))
    with self.assertRaises(ValueError) as raised:
      load_model(self.output)
    for layer in range(2):
      self.assertIn(
        f"wrong shape: language_model/layers_{layer}/mlp/up_proj/kernel is [64, 112], the config asks for [64, 96]",
        str(raised.exception),
      )
    (self.output / orbax.MANIFEST).write_text("{")
    with self.assertRaisesRegex(ValueError, "is not a manifest of parameters"):
      load_model(self.output)

  def test_groups(self):
    _, params = load_model(self.source)
    names = orbax.groups(traverse_util.flatten_dict(params))
    self.assertIn("language_model.layers_1", names)
    self.assertIn("vision_tower.encoder.layers_0", names)
    self.assertIn("lm_head", names)
    self.assertLen(sum(names.values(), []), len(jax.tree.leaves(params)))


if __name__ == "__main__":
  absltest.main()
