"""Meshes: what they refuse, how parameters are split, and that generation on them is generation on one device.

Programs on several devices run in processes of their own, which count their devices at start.
"""

import json
import pathlib
import re
import socket
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
from flax import traverse_util
import jax
from jax.sharding import PartitionSpec as P
import numpy as np

from models import registry
from models import sharding
from models.checkpoints import params as params_lib
from tests.reference import ports
from tests.reference import process_checks
from tests.reference import processes
from tests.reference import qwen2_5_vl

# Room of a port, config and number of prompts; and a mesh.
MESHES = (
  ("qwen2_5_vl/gqa/4", "data:2,fsdp:2,tensor:2"),
  ("qwen3_vl/gqa/4", "data:2,fsdp:2,tensor:2"),
  ("qwen3_vl_moe/tied/4", "data:2,fsdp:2,tensor:2"),
  ("llava/mistral/3", "fsdp:2,tensor:4"),  # 3 prompts, which 2 devices do not divide
  ("internvl/qwen3/4", "data:2,fsdp:2,tensor:2"),
  ("llava_onevision/untied/4", "data:2,fsdp:2,tensor:2"),
  ("qwen2_5_vl/gqa/4/stages", "data:2,fsdp:2,tensor:2"),
)


def start(devices: int, module: str, *arguments: str) -> processes.Program:
  """A program on simulated devices."""
  # By default XLA on CPU runs what it can as early as it can, and so gathers weights long before they are used.
  order = "--xla_cpu_enable_concurrency_optimized_scheduler=false"
  return processes.Program(module, *arguments, xla_flags=f"--xla_force_host_platform_device_count={devices} {order}")


def specs(reference, config_name, sizes):
  """PartitionSpecs by path on a mesh of abstract devices."""
  mesh = jax.sharding.AbstractMesh(sizes, sharding.AXES)
  model = registry.build("tiny", reference.CONFIGS[config_name])
  tree = sharding.param_specs(params_lib.abstract(model), model.clone(mesh=mesh))
  return {"/".join(path): value.spec for path, value in traverse_util.flatten_dict(tree).items()}


class ShardingTest(parameterized.TestCase):
  @parameterized.parameters(
    ("data:2", "asks for 2 devices, there are 1"),
    ("model:1", "got 'model:1' in 'model:1', must be like data:2,fsdp:2,tensor:2"),
    ("data:x", "got 'data:x'"),
    ("data:0", "got 'data:0'"),
    ("data:1,data:1", "each of data, fsdp, tensor at most once"),
    ("", "got ''"),
  )
  def test_meshes_that_cannot_be(self, spec, message):
    with self.assertRaisesRegex(ValueError, f"mesh: .*{message}"):
      sharding.make_mesh(spec, jax.devices()[:1])

  def test_one_device(self):
    for spec in (None, "tensor:1"):
      self.assertEqual(dict(sharding.make_mesh(spec, jax.devices()[:1]).shape), {"data": 1, "fsdp": 1, "tensor": 1})

  def test_every_matrix_of_every_port_has_its_place(self):
    references = ports.REFERENCES.values()
    families = {config["model_type"] for reference in references for config in reference.CONFIGS.values()}
    self.assertEqual(families, {*registry.PORTS})
    self.assertEqual({name.split("/")[0] for name, _ in MESHES}, {*ports.REFERENCES})
    for reference in references:
      for config_name in reference.CONFIGS:
        for path, spec in specs(reference, config_name, (1, 2, 2)).items():
          if path.endswith("kernel") or "/experts/" in path:
            self.assertIn("fsdp", spec, f"{config_name} {path}")

  def test_heads_are_never_split(self):
    found = {size: specs(qwen2_5_vl, "gqa", (1, 2, size)) for size in (2, 4, 16)}
    attention = "language_model/layers_0/self_attn/"
    at = lambda size, name: found[size][attention + name + "/kernel"]
    self.assertEqual([at(size, "q_proj") for size in found], [P("fsdp", "tensor"), P("fsdp", "tensor"), P("fsdp", None)])
    self.assertEqual([at(size, "k_proj") for size in found], [P("fsdp", "tensor"), P("fsdp", None), P("fsdp", None)])
    self.assertEqual([at(size, "o_proj") for size in found], [P("tensor", "fsdp"), P("tensor", "fsdp"), P(None, "fsdp")])
    self.assertEqual(
      [found[size]["visual/blocks_0/attn/qkv/kernel"] for size in (2, 4)], [P("fsdp", None, "tensor"), P("fsdp", None, None)]
    )

  def test_unknown_parameter(self):
    model = registry.build("tiny", qwen2_5_vl.CONFIGS["gqa"], jax.sharding.AbstractMesh((1, 1, 1), sharding.AXES))
    with self.assertRaisesRegex(ValueError, "mesh: no rule says how extra/kernel is split"):
      sharding.param_specs({"extra": {"kernel": np.zeros([2, 2])}}, model)

  @parameterized.parameters(*MESHES)
  def test_generation_equals_one_device(self, name, spec):
    self.assertIn(
      f"{name} on {spec}: tokens equal", processes.succeeded(start(8, "tests.reference.mesh_checks", name, spec))
    )

  def test_gathered_weights(self):
    self.assertIn("fsdp:4 decode", processes.succeeded(start(8, "tests.reference.compiled_checks")))

  @parameterized.parameters(
    (4, "fsdp:4,tensor:2", {"qwen2_5_vl": "gqa"}),
    (1, "fsdp:2", {"qwen3_vl": "gqa", "internvl": "qwen3", "llava_onevision": "untied"}),
  )
  def test_two_processes(self, devices, spec, configs):
    with tempfile.TemporaryDirectory() as holder:
      directories = {family: pathlib.Path(holder, family) for family in configs}
      for family, directory in directories.items():
        directory.mkdir()
        ports.REFERENCES[family].write_checkpoint(directory, configs[family])
      with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        coordinator = f"127.0.0.1:{free.getsockname()[1]}"
      pairs = [f"{family}={directory}" for family, directory in directories.items()]
      started = [
        start(devices, "tests.reference.process_checks", coordinator, "2", str(number), spec, *pairs) for number in range(2)
      ]
      results = [json.loads(re.findall("^{.*}$", processes.succeeded(program), re.MULTILINE)[-1]) for program in started]
      expected = {
        family: process_checks.answers(family, *registry.load_model(directory)) for family, directory in directories.items()
      }
    for result in results:
      self.assertCountEqual(result, configs)
      for family, found in result.items():
        self.assertEqual(found["tokens"], expected[family])
        self.assertLessEqual(found["read"], 1.05 * found["share"])
        self.assertLess(found["share"], 0.6 * found["all"])


if __name__ == "__main__":
  absltest.main()
