"""The commands that estimate and compare, killed and started again, and what they refuse."""

import pathlib
import signal
import tempfile
import time
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np

from experiments import compare
from experiments import head_importance
from experiments.digits import embedded
from experiments.digits import task
from experiments.estimation import data
from experiments.estimation import estimators
from experiments.running import files
from experiments.running import watching
from hawk_jax import importance
from models import load_processor
from models import registry
from tests.experiments import programs
from tests.reference import processes

COMMANDS = {"head_importance": head_importance, "compare": compare}


class RunsTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    # What is compiled here need not be compiled again in the processes that are killed.
    cls.programs = cls.enterClassContext(programs.shared())

  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def start(self, command, name, **settings):
    """The command as a user starts it."""
    flags = [
      f"--{flag}={value}"
      for flag, values in settings.items()
      for value in (values if isinstance(values, tuple) else (values,))
    ]
    directories = [f"--compilation_cache={self.programs}", f"--output_dir={self.directory / name}"]
    return processes.Program(f"experiments.{command}", *directories, *flags)

  def finish(self, command, name, **settings):
    """Runs the command here, to its end; the files that it wrote."""
    module = COMMANDS[command]
    module.run(module.Settings(output_dir=str(self.directory / name), **settings))
    found = {path.name: path.read_bytes() for path in (self.directory / name).iterdir() if path.suffix != ".png"}
    if "metrics.jsonl" in found:  # which holds times
      lines = watching.read(self.directory / name / "metrics.jsonl")
      found["metrics.jsonl"] = [{key: value for key, value in line.items() if key != "time"} for line in lines]
    return found

  @parameterized.parameters(
    ("head_importance", "batches.jsonl", dict(estimator="ablation", examples=2, batch_size=2)),
    ("head_importance", "steps.jsonl", dict(estimator="learned", examples=1, batch_size=5, steps=8)),
    (
      "compare",
      "batches.jsonl",
      dict(questions=25, batch_size=5, keep_ratio=(0.2,), selector=("random",), heads=False, timing_rounds=0),
    ),
  )
  def test_killed_and_started_again_equals_undisturbed(self, command, records, settings):
    whole = self.finish(command, "whole", **settings)
    steps = [line["step"] for line in whole["metrics.jsonl"]]
    self.assertEqual(steps, [*range(1, whole[records].count(b"\n")), steps[-1]])  # and the result
    process = self.start(command, "killed", **settings)
    path = self.directory / "killed" / records
    while process.running and not (path.exists() and path.read_bytes().count(b"\n") > 2):
      time.sleep(0.02)
    process.kill()
    status, output = process.finish()
    self.assertEqual(status, -signal.SIGKILL, output)
    self.assertLess(path.read_bytes().count(b"\n"), whole[records].count(b"\n"))
    self.assertEqual(self.finish(command, "killed", **settings), whole)
    with self.assertRaisesRegex(ValueError, "belongs to a run with other batch_size"):
      self.finish(command, "killed", **{**settings, "batch_size": 4})

  def test_returns_the_weights_that_it_writes(self):
    settings = head_importance.Settings(estimator="random", seed=3, output_dir=str(self.directory))
    weights = head_importance.run(settings)
    np.testing.assert_allclose(importance.load(self.directory / "head_importance.json"), weights, rtol=1e-6)
    self.assertEqual(
      importance.details(self.directory / "head_importance.json")["settings"],
      {"estimator": "random", "model_name": "qwen2_5_vl", "heads": 8, "seed": 3},
    )

  @parameterized.parameters(*(name for name, one in estimators.ESTIMATORS.items() if not isinstance(one, estimators.Fixed)))
  def test_small_pictures_in_bfloat16(self, estimator):
    settings = dict(estimator=estimator, examples=1, batch_size=5, dtype="bfloat16", max_pixels=96 * 96)
    settings |= {"learned": dict(steps=2), "ablation": dict(metric="log_likelihood")}.get(estimator, {})
    with mock.patch.object(data, "make_batch", side_effect=data.make_batch) as make:
      weights = head_importance.run(head_importance.Settings(output_dir=str(self.directory), **settings))
    self.assertAlmostEqual(float(weights.sum()), 1, places=5)
    _, params, *_ = make.call_args.args
    self.assertEqual({x.dtype.name for x in jax.tree.leaves(params)}, {"bfloat16"})
    written = importance.details(self.directory / "head_importance.json")["settings"]
    self.assertEqual((written["max_pixels"], "min_pixels" in written), (96 * 96, False))

  def test_pictures_are_scaled(self):
    directory, model = registry.describe(str(embedded.DIRECTORY / "qwen2_5_vl"))
    params, processor = registry.load_params(directory, model), load_processor(str(directory))
    examples = data.from_digits("calibration", ["boxed"], 1)
    counts = [
      int(data.Batches(model, params, processor, examples, 1, pixels=pixels)[0].prompt.visual_counts.item())
      for pixels in ({}, {"max_pixels": 96 * 96})
    ]
    self.assertEqual(counts, [144, 36])

  def test_figure_names_the_layer(self):
    settings = dict(estimator="attention_mass", examples=1, batch_size=5)
    with mock.patch.object(head_importance.figures, "bars", side_effect=head_importance.figures.bars) as bars:
      self.finish("head_importance", "first", **settings)
      self.finish("head_importance", "later", **settings, score_layer=1)
    self.assertEqual([call.args[1] for call in bars.call_args_list], ["head of the first layer", "head of decoder layer 1"])

  def test_calibration_pictures_are_not_test_pictures(self):
    path = self.directory / "w.json"
    digest = data.from_digits("test", task.KINDS, 1)[0].digest
    importance.save(str(path), np.ones(8) / 8, pictures=[digest])
    with self.assertRaisesRegex(ValueError, "was estimated on 1 of the test pictures"):
      self.finish("compare", "out", questions=5, importance=(f"mine={path}",))

  @parameterized.parameters(
    (dict(estimator="gradients"), "estimator: got 'gradients', allowed are ablation"),
    (dict(estimator="one_hot:8"), "estimator: got one_hot:8, the model's first layer has heads 0 to 7"),
    (dict(dataset=("colors",)), "dataset: got 'colors', allowed are color_to_digit"),
    (dict(mode="zero"), "mode: got 'zero', allowed are zero_output, mask_visual"),
    (dict(region_floor=0.5), "region_floor: got 0.5, ablation does not read it; it must be 0.0$"),
    (dict(estimator="learned", sink_filter=0.1), "sink_filter: got 0.1, learned does not read it; it must be 0.0$"),
    (dict(estimator="gradient", metric="log_likelihood"), "metric: got 'log_likelihood', gradient does not read it; it"),
    (dict(estimator="one_hot:1", score_layer=1), "score_layer: got 1, one_hot:1 does not read it; it must be 0$"),
  )
  def test_bad_settings(self, settings, message):
    with self.assertRaisesRegex(ValueError, f"^{message}"):
      self.finish("head_importance", "bad", **settings)

  @parameterized.parameters("head_importance", "compare")
  def test_what_is_in_the_way_is_found_before_weights_are_loaded(self, command):
    refuse = lambda message: self.assertRaisesRegex(ValueError, f"^{message}")
    with mock.patch.object(COMMANDS[command].registry, "load_params") as load:
      with (
        files.resumable_directory("output_dir", str(self.directory / "busy")),
        refuse("output_dir: another run is using .*busy"),
      ):
        self.finish(command, "busy")
      (self.directory / "taken" / f"{command}.png").mkdir(parents=True)
      with refuse(f"output_dir: .*{command}.png is a directory"):
        self.finish(command, "taken")
      with refuse("data: cannot read '/no/such"):
        self.finish(command, "data", data="/no/such.jsonl")
      load.assert_not_called()

  def test_bad_settings_end_the_process_without_a_traceback(self):
    status, errors = self.start("head_importance", "bad", estimator="gradients").finish()
    self.assertEqual(status, 2, errors)
    self.assertIn("error: estimator: got 'gradients', allowed are ablation", errors)
    self.assertNotIn("Traceback", errors)


if __name__ == "__main__":
  absltest.main()
