"""Training can be killed at any moment: the same command ends in the same model."""

import itertools
import pathlib
import tempfile
from unittest import mock

from absl import flags
from absl.testing import absltest
from absl.testing import flagsaver
import numpy as np

from experiments import embedded
from experiments import train
from models import load_model


class Killed(BaseException):
  pass


class TrainTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    if not flags.FLAGS.is_parsed():
      flags.FLAGS.mark_as_parsed()  # pytest does not parse them
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.directory = pathlib.Path(holder.name)

  def train(self, name, kill_after=None):
    step, calls = train.train_step, itertools.count(1)

    def run_or_die(*args, **kwargs):
      if kill_after is not None and next(calls) > kill_after:
        raise Killed
      return step(*args, **kwargs)

    settings = dict(output_dir=str(self.directory / name), steps=4, batch_size=1, questions=3, save_every=1,
                    evaluate_every=100)
    with flagsaver.flagsaver(**settings), mock.patch.object(train, "train_step", run_or_die):
      train.main()
    return self.directory / name / "model"

  def test_killed_and_resumed_equals_undisturbed(self):
    whole = self.train("whole")
    with self.assertRaises(Killed):
      self.train("killed", kill_after=2)
    self.assertFalse((self.directory / "killed" / "model").exists())
    resumed = self.train("killed")
    for path in whole.iterdir():
      self.assertEqual(path.read_bytes(), (resumed / path.name).read_bytes(), path.name)
    model, params = load_model(str(resumed))
    self.assertEqual(model.config.text.num_attention_heads, 8)
    self.assertTrue(np.isfinite(params["language_model"]["norm"]["scale"]).all())
    with self.assertRaisesRegex(ValueError, "output_dir: .*killed holds a run with other settings"):
      with flagsaver.flagsaver(seed=5):
        self.train("killed")

  def test_dropped_tokens_are_never_those_asked_for(self):
    architecture = embedded.ARCHITECTURES["qwen2_5_vl"]
    tokenizer = embedded.make_tokenizer(architecture)
    model = architecture.model(architecture.config(tokenizer.get_vocab_size()))
    rng = np.random.default_rng(0)
    batch, _ = train.make_batch(architecture, model, tokenizer, rng, "train", 6, 4)
    dropped = train.drop_tokens(batch, rng)["inputs"].prompt.visual_order < 0
    self.assertTrue(dropped.any())
    self.assertFalse(dropped.all(axis=1).any())
    self.assertFalse((dropped & (batch["about"].sum(axis=1) > 0)).any())


if __name__ == "__main__":
  absltest.main()
