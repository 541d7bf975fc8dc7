"""Training can be killed at any moment: the same command ends in the same model."""

import pathlib
import signal
import tempfile
from unittest import mock

from absl.testing import absltest
import numpy as np

from experiments import train
from experiments.running import files
from models import load_model
from tests.experiments import programs
from tests.experiments import small_training
from tests.reference import processes


class TrainTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.programs = self.enter_context(programs.shared())

  def test_killed_and_resumed_equals_undisturbed(self):
    whole = small_training.run(self.directory / "whole")
    killed = processes.Program("tests.experiments.small_training", str(self.directory / "killed"), self.programs, "2")
    status, output = killed.finish()
    self.assertEqual(status, -signal.SIGKILL, output)
    self.assertFalse((self.directory / "killed" / "model").exists())
    self.assertTrue((self.directory / "killed" / "checkpoints" / "1").is_dir())
    resumed = small_training.run(self.directory / "killed")
    for path in whole.iterdir():
      self.assertEqual(path.read_bytes(), (resumed / path.name).read_bytes(), path.name)
    model, params = load_model(str(resumed))
    self.assertEqual(model.config.text.num_attention_heads, 8)
    self.assertTrue(np.isfinite(params["language_model"]["norm"]["scale"]).all())
    with self.assertRaisesRegex(ValueError, "output_dir: .*killed holds a run with other settings"):
      small_training.run(self.directory / "killed", seed=5)

  def test_a_checkpoint_that_does_not_exist_leaves_no_trace(self):
    with self.assertRaisesRegex(ValueError, "there is no directory '/no/such/model'"):
      small_training.run(self.directory / "new", init_from="/no/such/model")
    self.assertEmpty(list((self.directory / "new").iterdir()))

  def test_what_is_known_is_checked_first(self):
    directory = self.directory / "run"
    with files.resumable_directory("output_dir", str(directory)):
      with self.assertRaisesRegex(ValueError, "output_dir: another run is using .*run"):
        small_training.run(directory)
    (directory / "settings.json").write_text("{")
    with mock.patch.object(train.embedded, "make_student") as make:
      with self.assertRaisesRegex(ValueError, "output_dir: .*run holds a run with other settings, {, not {.*}"):
        small_training.run(directory)
      make.assert_not_called()

  def test_auxiliary_losses_follow_the_flags(self):
    self.assertEqual(train.Settings().auxiliary, ("cells", "point_middle"))
    self.assertEqual(
      train.Settings(probe_left=True, point_first=True).auxiliary, ("cells", "left", "point_middle", "point_first")
    )
    self.assertEqual(train.Settings(answer_early=True, point_middle=False).auxiliary, ("cells", "early"))
    self.assertEqual(train.Settings(read_first=5, probe_left=True).auxiliary, ("point_middle",))
    with self.assertRaisesRegex(ValueError, "^read_first: got 4000, must be below steps, 4000"):
      train.Settings(read_first=4000)


if __name__ == "__main__":
  absltest.main()
