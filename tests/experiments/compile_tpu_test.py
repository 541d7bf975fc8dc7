"""Planning for TPUs: the whole command, compiled for a CPU in place of a slice, and what it refuses."""

import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import jax

from experiments import compile_tpu
from experiments.speed import flops
from experiments.tpu import hlo
from experiments.tpu import report as report_lib
from experiments.tpu import slices
from models import registry
from models.checkpoints import params as params_lib
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import qwen2_5_vl as reference

_CONTENT = json.loads(json.dumps(reference.CONFIGS["gqa"]))
_CONTENT["text_config"]["num_hidden_layers"] = _CONTENT["vision_config"]["depth"] = 1
CONFIG = config_lib.from_hf(_CONTENT)


class CompileTpuTest(absltest.TestCase):
  def test_report(self):
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    settings = compile_tpu.Settings(
      batch=2, visual_tokens=16, text_tokens=12, max_new_tokens=4, keep_ratio=(0.5, 1.0, 0.5), output_dir=holder.name
    )
    with (
      mock.patch.object(slices, "slice_devices", return_value=(hlo.CHIPS["v5e"], jax.devices()[:1])),
      mock.patch.object(registry, "published", lambda name, mesh: Qwen2_5_VL(CONFIG, mesh)),
    ):
      report = compile_tpu.run(settings)
    self.assertEqual(json.loads((pathlib.Path(holder.name) / "compile_tpu.json").read_text()), report)

    shapes = jax.tree.leaves(params_lib.abstract(Qwen2_5_VL(CONFIG)))
    self.assertEqual(report["parameters"], sum(x.size for x in shapes))
    self.assertEqual((report["visual_tokens"], report["text_tokens"]), (16, 12))
    rows = report["programs"]
    self.assertEqual(
      [(row["program"], row.get("keep_ratio"), row.get("tokens")) for row in rows],
      [("vision", None, None), ("prefill", 1.0, 28), ("decode", 1.0, 28), ("prefill", 0.5, 20), ("decode", 0.5, 20)],
    )
    grids = [[1, 8, 8]] * 2
    self.assertEqual(rows[0]["model_flops"], Qwen2_5_VL(CONFIG).vision_flops({"image_grid_thw": grids}))
    self.assertEqual(rows[1]["model_flops"], 2 * flops.language_prefill(CONFIG.text, 28))
    self.assertEqual(rows[3]["model_flops"], 2 * (flops.language_prefill(CONFIG.text, 20) + flops.scoring(CONFIG.text, 16)))
    for row in rows:
      self.assertTrue(row["fits"])
      self.assertEqual(row["weights_bytes"], 2 * report["parameters"])
      self.assertGreater(row["needed_bytes"], row["weights_bytes"])
      self.assertEqual(row["collectives"], {})
      seconds = row["seconds"]
      self.assertEqual(row["predicted_seconds"], max(seconds["compute"], seconds["memory"]) + seconds["interconnect"])
    # Text is padded to 32 slots and visual tokens to 16 or 8; then there is room for 4 new tokens.
    for row, slots in zip(rows[1:], (52, 52, 44, 44)):
      self.assertEqual(row["cache_bytes"], 2 * 2 * flops.kv_cache_elements(CONFIG.text, slots))

    lines = report_lib.summarize(report).splitlines()
    (heading,) = (number for number, line in enumerate(lines) if line.startswith("| kept"))
    vision, whole, pruned = (rows[number] for number in (0, 1, 3))
    shares = [
      sum(row[key] for row in above) / sum(row[key] for row in below)
      for above, below in (([pruned], [whole]), ([vision, pruned], [vision, whole]))
      for key in ("predicted_seconds", "model_flops")
    ]
    cells = lines[heading + 3].strip("| ").split(" | ")
    self.assertEqual(cells[:2] + [cells[number] for number in (3, 4, 6, 7)], ["0.5", "20", *(f"{x:.3f}" for x in shares)])

  def test_bad_keep_ratio(self):
    with self.assertRaisesRegex(ValueError, r"keep_ratio: got 0.0, must be in \(0, 1\]"):
      compile_tpu.Settings(keep_ratio=(0.5, 0.0))

  def test_bad_model_config(self):
    with self.assertRaisesRegex(ValueError, "model_config: got 'qwen3', allowed are .*qwen2.5-vl-7b"):
      compile_tpu.Settings(model_config="qwen3")

  def test_pictures(self):
    qwen, llava = (registry.published(name) for name in ("qwen2.5-vl-7b", "llava-1.5-7b"))
    self.assertEqual(qwen.picture_size(), (1792, 1792))
    self.assertEqual(qwen.picture_size(512), (28 * 16, 28 * 32))
    self.assertEqual(llava.picture_size(576), (336, 336))
    with self.assertRaisesRegex(ValueError, "visual_tokens: got 4099, .* such as 4096"):
      qwen.picture_size(4099)
    with self.assertRaisesRegex(ValueError, "visual_tokens: got 4096, every picture of this model has 576"):
      llava.picture_size(4096)


if __name__ == "__main__":
  absltest.main()
