"""The benchmark at a tiny size: what its report holds, and that outputs unlike the baseline's are refused."""

import contextlib
import json
import pathlib
import tempfile
import types
from unittest import mock

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from experiments import benchmark
from experiments.speed import flops
from experiments.speed import report as report_lib
from experiments.speed import timing
from experiments.speed.programs import Programs
from models import generate
from models import registry
from models.checkpoints import directory as directory_lib
from models.checkpoints import hf
from models.checkpoints import params as params_lib
from tests.reference import qwen2_5_vl as reference

STAGES = ("first_token", "prefill", "prune", "language", "decode", "answer")
PUBLISHED = {"gpu-7b": "qwen2.5-vl-7b", "gpu-3b": "qwen2.5-vl-3b", "gpu-llava-7b": "llava-1.5-7b"}
PUBLISHED |= {name: name for name in ("internvl3-8b", "llava-onevision-7b", "qwen3-vl-8b")}
BASELINE_STAGES = ("first_token", "decode")
STEPS = 2


class FakeBaseline:
  """Our model in place of transformers' torch model: it looks up what it is asked to keep by the number of tokens."""

  calls = {"vision": 0, "prefill": 0, "decode": 0, "wait": 0}
  error = 0.0

  device = "cuda"  # so that its CUDA graphs are asked for

  def __init__(self, directory, dtype, weights):
    directory = pathlib.Path(directory)
    self.model = registry.build(directory, directory_lib.read_config(directory))
    with tempfile.TemporaryDirectory() as holder:
      safetensors.numpy.save_file(
        {name: np.ascontiguousarray(x) for name, x in weights.items()}, f"{holder}/model.safetensors"
      )
      self.params = hf.load(pathlib.Path(holder), self.model, dtype)

  def tensors(self, arrays):
    return self.model.pack(**arrays)

  def vision(self, inputs):
    del inputs
    self.calls["vision"] += 1

  def prefill(self, inputs, kept, room=None):
    assert len(kept) == len(inputs.prompt.visual_order) and room in (None, kept.shape[1] + STEPS + 1)
    self.calls["prefill"] += 1
    return "logits", "cache", 0

  def decode(self, logits, cache, following, steps):
    assert (logits, cache, following, steps) == ("logits", "cache", 0, STEPS)
    self.calls["decode"] += 1

  def wait(self):
    self.calls["wait"] += 1

  def answer(self, inputs, kept, steps):
    (kept,) = kept
    count = len(kept) - int(inputs.prompt.text_counts[0])
    out = generate(self.model, self.params, inputs, keep_count=count, max_new_tokens=steps + 1, return_logits=True)
    np.testing.assert_array_equal(out.kept_positions[0][: len(kept)], kept)
    logits = np.array(out.logits[0, 0])
    logits[0] += self.error
    return logits[None], np.asarray(out.tokens).tolist()


class BenchmarkTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.directory = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    config = json.loads(json.dumps(reference.CONFIGS["gqa"]))
    config["text_config"]["num_hidden_layers"] = config["vision_config"]["depth"] = 1
    (cls.directory / "cpu").mkdir()
    (cls.directory / "cpu" / "config.json").write_text(json.dumps(config))
    matrix = np.ones([1024, 1024], np.float32)
    for module, name, value in (
      (benchmark, "_CONFIGS", cls.directory),
      (benchmark, "_open_baseline", FakeBaseline),
      (benchmark.comparison, "find_spec", lambda name: name),
      # Seconds of compilation do not matter here, so that equal programs of the tests are compiled once.
      (benchmark, "compilation_cache", types.SimpleNamespace(kept_in=contextlib.nullcontext)),
      # The machine's limits have their own test, in timing_test.
      (timing, "multiplications", lambda dtype: {"product": timing.Limit(lambda: matrix @ matrix, 2.0 * 1024**3)}),
      (timing, "readings", lambda: {"read": timing.Limit(matrix.sum, matrix.nbytes)}),
    ):
      patch = mock.patch.object(module, name, value)
      patch.start()
      cls.addClassCleanup(patch.stop)
    cls.model = registry.build(cls.directory / "cpu", config)

  def settings(self, **values):
    return benchmark.Settings(
      **{
        **dict(
          side=112,
          text_tokens=12,
          steps=STEPS,
          rounds=1,
          batch_size=(4,),
          keep_ratio=(0.5, 1.0),
          baseline="transformers",
          output_dir=str(self.directory / "out"),
        ),
        **values,
      }
    )

  def test_report(self):
    with mock.patch.dict(FakeBaseline.calls, dict.fromkeys(FakeBaseline.calls, 0)):
      report = benchmark.run(self.settings())
      calls = dict(FakeBaseline.calls)
    output = self.directory / "out"
    self.assertEqual(json.loads((output / "benchmark.json").read_text()), report)
    self.assertEqual((output / "benchmark.md").read_text(), report_lib.summarize(report) + "\n")
    self.assertTrue((output / "benchmark.png").read_bytes().startswith(b"\x89PNG"))

    seconds = report["seconds"]
    cases = [
      f"{prefix}{stage} {name}"
      for names, prefix, stages in (
        (("1", "0.5"), "", STAGES),
        (("x4",), "", BASELINE_STAGES),
        (("1", "0.5", "x4"), "transformers float32 ", BASELINE_STAGES),
      )
      for name in names
      for stage in stages
    ]
    cases += [f"transformers float32 decode {name}, CUDA graphs" for name in ("1", "0.5", "x4")]
    self.assertCountEqual(
      [name for name in seconds if not name.startswith(("product", "read"))],
      ["vision", *cases, "batch", "one by one", "transformers float32 vision", "transformers float32 batch"],
    )
    for name, values in seconds.items():
      self.assertLen(values, 1, name)
      self.assertGreater(values[0], 0, name)
    # In the round that counts and the one before it: three cases alone and before both ways to decode, and four rows one by
    # one.
    self.assertEqual(calls, {"vision": 2, "prefill": 2 * (9 + 4), "decode": 2 * (6 + 4), "wait": 2 * 2 * 11})

    # 112 pixels are 4 x 4 visual tokens of this model.
    text = self.model.config.text
    self.assertEqual((report["visual_tokens"], report["text_tokens"], report["steps"]), (16, 12, STEPS))
    self.assertEqual(report["vision_flops"], self.model.vision_flops({"image_grid_thw": [[1, 8, 8]]}))
    self.assertEqual([(case["keep_ratio"], case["tokens"]) for case in report["cases"]], [(1.0, 28), (0.5, 20)])
    for case, slots in zip(report["cases"], (32 + 16, 32 + 8)):  # buckets of text and of visual tokens
      self.assertEqual(case["cache_bytes"], 4 * flops.kv_cache_elements(text, slots + STEPS + 1))
      self.assertEqual(case["language_flops"], flops.language_prefill(text, case["tokens"]))
      self.assertEqual(case["decode_bytes"], flops.decode_bytes(text, case["tokens"] + 1, 1, 4))
      self.assertEqual(set(case["compile_seconds"]), {"vision", "prefill", "prune", "language", "decode"})
      self.assertEqual(set(case["temporary_bytes"]), set(case["compile_seconds"]))
      self.assertGreater(case["peak_bytes"]["process"] or 1e9, 1e8)
    self.assertEqual(
      [(check["baseline"], check["case"]) for check in report["checks"]],
      [("transformers float32", "1"), ("transformers float32", "0.5")],
    )
    for check in report["checks"]:
      self.assertLess(check["largest_logit_error"], 1e-5)
      self.assertEqual((check["equal_tokens"], check["of"]), (STEPS + 1, STEPS + 1))

  def test_outputs_unlike_the_baseline(self):
    with mock.patch.object(FakeBaseline, "error", 0.1):
      with self.assertRaisesRegex(ValueError, "baseline: outputs differ at 1: .*'equal_tokens'"):
        benchmark.run(self.settings(keep_ratio=()))

  def test_stages_faster_than_the_limits_fail_after_the_report_is_written(self):
    slow = lambda dtype: {"product": timing.Limit(lambda: np.ones(1), 1e-3)}
    output = self.directory / "limits"
    with mock.patch.object(timing, "multiplications", slow):
      with self.assertRaisesRegex(ValueError, "^limits: stages are faster than the machine's limits"):
        benchmark.run(self.settings(baseline="none", batch_size=(), keep_ratio=(0.5,), output_dir=str(output)))
    self.assertGreater(json.loads((output / "benchmark.json").read_text())["seconds"]["answer 1"][0], 0)

  def test_mesh(self):
    with mock.patch.object(benchmark, "_measure", side_effect=InterruptedError) as measure:
      with self.assertRaises(InterruptedError):
        benchmark.run(self.settings(mesh="tensor:1", baseline="none"))
    _, model, params, _, cases = measure.call_args.args
    self.assertEqual(model.mesh.shape, {"data": 1, "fsdp": 1, "tensor": 1})
    answer = Programs(model, params, cases.singles[1], STEPS).answer()
    alone = generate(
      self.model,
      params_lib.init(self.model),
      self.model.pack(**cases.arrays),
      keep_ratio=0.5,
      max_new_tokens=STEPS + 1,
    )
    np.testing.assert_array_equal(answer.tokens, alone.tokens)
    np.testing.assert_array_equal(answer.kept_positions, alone.kept_positions)
    for other in (dict(baseline="transformers"), dict(baseline="none", compile_only=True)):
      with self.assertRaisesRegex(ValueError, "mesh: the baseline and compile_only use one device"):
        self.settings(mesh="tensor:1", **other)
    with self.assertRaisesRegex(ValueError, "mesh: 'tensor:99' asks for 99 devices"):
      benchmark.run(self.settings(mesh="tensor:99", baseline="none"))

  def test_compile_only(self):
    report = benchmark.run(self.settings(compile_only=True))
    found = report["compilations"]
    names, starts = ("vision", "prefill and decoding"), ("first start", "with a warm cache")
    self.assertEqual([(one.program, one.start) for one in found], [(name, start) for start in starts for name in names])
    seconds = benchmark.summarize(report)
    self.assertEqual([*seconds], [f"{name}, {start}, s" for start in starts for name in names])
    self.assertEqual(seconds["vision, first start, s"], found[0].tracing + found[0].compiling)
    self.assertRegex(str(found[0]), r"vision, first start: traced in \d+\.\d s, compiled in \d+\.\d s")

  def test_bad_settings(self):
    with self.assertRaisesRegex(ValueError, "batch_size"):
      self.settings(batch_size=(1,))
    with mock.patch.object(benchmark.comparison, "find_spec", return_value=None):
      with self.assertRaisesRegex(ValueError, "baseline: transformers needs torch, which is not installed"):
        self.settings()
    with self.assertRaisesRegex(ValueError, r"keep_ratio: got 1.5, must be in \(0, 1\]"):
      benchmark.Settings(keep_ratio=(0.5, 1.5))
    # Prompts are checked before parameters are read, of which this checkpoint has none.
    with self.assertRaisesRegex(ValueError, "max_new_tokens: got 2001, but the longest prompt"):
      benchmark.run(self.settings(model=str(self.directory / "cpu"), steps=2000))

  def test_presets(self):
    for preset, dtype in benchmark._PRESETS.items():
      settings = benchmark.Settings(preset=preset)
      self.assertEqual(settings.parameter_dtype, dtype)
      self.assertEqual(jnp.dtype(settings.parameter_dtype).name, dtype)
      config = pathlib.Path(benchmark.__file__).parent / "configs" / preset
      built = registry.build(config, directory_lib.read_config(config))
      if preset in PUBLISHED:
        self.assertEqual(built.config, registry.published(PUBLISHED[preset]).config)
    self.assertEqual(benchmark.Settings(keep_ratio=(0.4, 1.0, 0.4)).ratios, [1.0, 0.4])


if __name__ == "__main__":
  absltest.main()
