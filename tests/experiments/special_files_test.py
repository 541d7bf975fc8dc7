"""Devices and pipes in the place of files are refused at once: reading them may never end."""

import os
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized

from experiments import generate
from experiments import train
from experiments.digits import embedded
from experiments.estimation import data
from experiments.evaluation.benchmarks import tsv
from experiments.running import configs
from experiments.running import journal
from hawk_jax import checks
from hawk_jax import importance
from models import load_model
from models import load_processor
from models.inputs import messages
from models.inputs import pictures
from models.inputs import video

_ENTRY = {"role": "user", "content": [{"type": "image", "image": "file"}]}
READERS = {
  "importance": importance.load,
  "details of importance": importance.details,
  "calibration data": lambda path: data.from_jsonl(str(path)),
  "benchmark": lambda path: tsv.read(str(path)),
  "messages": lambda path: generate.run(generate.Settings(messages=str(path), output_dir=str(path.parent))),
  "picture": pictures.open_picture,
  "size of a picture": pictures.picture_size,
  "picture of a message": lambda path: pictures.open_picture(
    messages.read({**_ENTRY, "content": [{"type": "image", "image": path.name}]}, directory=path.parent).images[0]
  ),
  "video": video.read,
  "config file": lambda path: configs.load(str(path), None),
  "journal": lambda path: journal.Journal(path, {}),
  "another run's journal": journal.read,
  "training run": lambda path: train._check_same_run(path, train.Settings()),
}
CHECKPOINT = (
  *("config.json", "preprocessor_config.json", "tokenizer_config.json", "tokenizer.json", "generation_config.json"),
  *("chat_template.jinja", "vocab.txt", "spiece.model", "model.safetensors", "orbax.json"),
)
MESSAGE = "not a regular file|is not a file|there is no file"


class SpecialFilesTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def special(self, name):
    """A pipe and a device of this name, one after the other."""
    path = self.directory / name
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    yield path
    path.unlink()
    path.symlink_to("/dev/zero")
    yield path

  @parameterized.parameters(*READERS)
  def test_files(self, reader):
    for path in self.special("file"):
      with self.assertRaisesRegex((ValueError, OSError), MESSAGE) as caught:
        READERS[reader](path)
      self.assertIn(str(path), str(caught.exception))

  @parameterized.parameters(*CHECKPOINT)
  def test_files_of_a_checkpoint(self, name):
    for file in (embedded.DIRECTORY / "qwen2_5_vl").iterdir():
      (self.directory / file.name).symlink_to(file)
    for path in self.special(name):
      for load in (load_model, load_processor):
        with self.assertRaisesRegex(OSError, f"not a regular file: '{path}'"):
          load(self.directory)

  def test_what_is_read(self):
    path = self.directory / "file"
    path.write_text("é")
    self.assertEqual(checks.read_file(path), "é")
    for other, error in ((self.directory, IsADirectoryError), (self.directory / "none", FileNotFoundError)):
      with self.assertRaises(error):
        checks.read_file(other)


if __name__ == "__main__":
  absltest.main()
