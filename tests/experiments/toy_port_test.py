"""A port is one room and one line: a toy port, registered here, does what the others do, and no other file changes."""

import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
from PIL import Image

from experiments import compile_tpu
from experiments import evaluate
from experiments.speed import flops
from experiments.tpu import hlo
from experiments.tpu import slices
from models import generate
from models import load_model
from models import load_processor
from models import registry
from models import sharding
from models.checkpoints import params as params_lib
from tests.reference import toy_port


class ToyPortTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    patch = mock.patch.dict(registry.PORTS)
    patch.start()
    cls.addClassCleanup(patch.stop)
    toy_port.register()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    toy_port.write_checkpoint(cls.directory)
    rng = np.random.default_rng(0)
    cls.pictures = [Image.fromarray(rng.integers(0, 255, [8, 8, 3], np.uint8)) for _ in range(3)]

  def answer(self, model, params):
    processor = load_processor(str(self.directory))
    inputs = model.pack(**processor(images=[self.pictures[:1], []], prompts=["which digit is red ?", "is red ?"]))
    out = generate(model, params, inputs, head_importance=[1, 2, 3, 4], keep_count=2, max_new_tokens=3)
    self.assertEqual(int((out.kept_positions[0] >= 0).sum()), 5 + 2)
    self.assertEqual(inputs.views[0][0].count, 4)
    return np.asarray(out.tokens)

  def test_loads_onto_a_mesh_and_generates(self):
    alone = self.answer(*load_model(str(self.directory)))
    mesh = sharding.make_mesh("tensor:1", jax.devices()[:1])
    np.testing.assert_array_equal(self.answer(*load_model(str(self.directory), mesh=mesh)), alone)
    model = toy_port.Toy(toy_port.from_hf(toy_port.CONFIG))
    mesh = jax.sharding.AbstractMesh((1, 2, 2), sharding.AXES)
    specs = sharding.param_specs(params_lib.abstract(model), model.clone(mesh=mesh))
    self.assertEqual(specs["visual"]["kernel"].spec, sharding.P(None, "fsdp"))

  def test_is_evaluated(self):
    table = self.directory / "questions.tsv"
    names = []
    for number, picture in enumerate(self.pictures):
      names.append(f"{number}.png")
      picture.save(self.directory / names[-1])
    rows = [f"{number}\t{name}\twhich digit is red ?\t{number}" for number, name in enumerate(names)]
    table.write_text("\n".join(["index\timage_path\tquestion\tanswer", *rows]) + "\n")
    output = self.directory / "evaluation"
    evaluate.run(
      evaluate.Settings(
        model=str(self.directory),
        data=(str(table),),
        keep_ratio=(0.5,),
        batch_size=2,
        max_new_tokens=2,
        output_dir=str(output),
      )
    )
    lines = [json.loads(line) for line in (output / "predictions.jsonl").read_text().splitlines()]
    self.assertEqual([line["visual_tokens"] for line in lines], [4, 4, 4])
    self.assertEqual([line["settings"]["hawk 0.5"]["kept"] for line in lines], [2, 2, 2])

  def test_is_counted_and_compiled_for_a_slice(self):
    model = registry.published("toy-1m")
    self.assertIn("toy-1m", registry.published_sizes())
    self.assertEqual(model.vision_flops(model.synthetic_batch([(2, 2)], 8)), 2 * 4 * 3 * 32)
    self.assertGreater(flops.language_prefill(model.config.text, 20), flops.language_prefill(model.config.text, 10))
    output = self.directory / "compiled"
    # This machine's device takes the place of a TPU's, which libtpu would describe.
    with mock.patch.object(slices, "slice_devices", return_value=(hlo.CHIPS["v5e"], jax.devices()[:1])):
      compile_tpu.run(
        compile_tpu.Settings(
          model_config="toy-1m",
          topology="v5e:1x1",
          mesh="tensor:1",
          batch=2,
          keep_ratio=(1.0, 0.5),
          dtype="float32",
          output_dir=str(output),
        )
      )
    report = json.loads((output / "compile_tpu.json").read_text())
    self.assertTrue(all(row["fits"] for row in report["programs"]))
    self.assertEqual({row["program"] for row in report["programs"]}, {"vision", "prefill", "decode"})


if __name__ == "__main__":
  absltest.main()
