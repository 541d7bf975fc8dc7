"""Paths such as gs://, on a file system in memory."""

import dataclasses
import pathlib
import shutil
import tempfile
from unittest import mock

from absl.testing import absltest
from etils.epath import backend
import fsspec
from fsspec.implementations import memory

from experiments import compare
from experiments import convert
from experiments import generate
from experiments import sweep
from experiments import train
from experiments.digits import embedded
from experiments.running import command
from experiments.running import configs
from experiments.running import files
from experiments.running import journal
from experiments.running import remote
from hawk_jax import importance
from models import processor
from models import registry


@dataclasses.dataclass(frozen=True, kw_only=True)
class Toy(command.Settings):
  """Settings of a command with a number."""

  number: int = command.option(1, "A number.")
  output_dir: str = command.option("out", "Directory.")


class Bucket(memory.MemoryFileSystem):
  """gs:// in memory."""

  protocol = "gcs"
  store: dict = {}
  pseudo_dirs = [""]

  @classmethod
  def _strip_protocol(cls, path):
    return super()._strip_protocol(str(path).removeprefix("gs://"))


class RemoteTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    Bucket.store.clear()
    Bucket.pseudo_dirs[:] = [""]
    fsspec.register_implementation("gcs", Bucket, clobber=True)
    backend.fsspec_backend._get_filesystem.cache_clear()
    self.enter_context(mock.patch.object(remote, "_CACHE", self.directory / "cache"))
    self.bucket = fsspec.filesystem("gcs")

  def put(self, path, target):
    for file in [path] if path.is_file() else path.iterdir():
      self.bucket.pipe(f"gs://bucket/{target}" + ("" if path.is_file() else f"/{file.name}"), file.read_bytes())

  def test_inputs(self):
    self.put(embedded.DIRECTORY / "picture.png", "picture.png")
    self.put(embedded.DIRECTORY / "qwen2_5_vl", "models/tiny")
    learned = embedded.DIRECTORY.parent / "results" / "qwen2_5_vl" / "learned.json"
    self.put(learned, "learned.json")
    settings = remote.fetched(
      generate.Settings(
        model="gs://bucket/models/tiny", image=("gs://bucket/picture.png", "b.png"), output_dir="gs://bucket/out"
      )
    )
    self.assertEqual((settings.image[1], settings.output_dir), ("b.png", "gs://bucket/out"))
    self.assertEqual(processor.open_picture(settings.image[0]).size, (192, 192))
    directory, model = registry.describe(settings.model)
    self.assertEqual((directory.name, model.config.text.num_attention_heads), ("tiny", 8))
    self.assertEqual(len(list(directory.iterdir())), len(list((embedded.DIRECTORY / "qwen2_5_vl").iterdir())))
    (row,) = remote.fetched(compare.Settings(importance=("learned=gs://bucket/learned.json",))).importance
    self.assertTrue((importance.load(row.removeprefix("learned=")) == importance.load(learned)).all())
    unchanged = generate.Settings()
    self.assertIs(remote.fetched(unchanged), unchanged)

  def test_config_files(self):
    self.put(pathlib.Path(sweep.__file__).parent / "configs" / "digits.py", "digits.py")
    loaded = configs.load("gs://bucket/digits.py:llava", None)
    self.assertEqual(loaded.values["model"], "experiments/embedded_models/llava")
    with self.assertRaisesRegex(ValueError, "^config: cannot read gs://bucket/none.py "):
      configs.load("gs://bucket/none.py", None)

  def test_a_copy_is_made_once_and_again_when_the_file_changes(self):
    self.bucket.pipe("gs://bucket/a.txt", b"one")
    first = remote.fetch("data", "gs://bucket/a.txt")
    with mock.patch.object(Bucket, "_open", side_effect=AssertionError):
      self.assertEqual(remote.fetch("data", "gs://bucket/a.txt"), first)
    self.bucket.pipe("gs://bucket/a.txt", b"other")
    self.assertEqual(remote.fetch("data", "gs://bucket/a.txt").read_text(), "other")
    self.assertEqual(first.read_text(), "one")

  def test_output_directories(self):
    with mock.patch.object(remote, "_SECONDS", 0.02):
      mirror = remote.Mirror("output_dir", "gs://bucket/run", pull=False)
      (mirror.path / "journal").mkdir()
      records = journal.Journal(mirror.path / "journal" / "0.jsonl", {"a": 1})
      records.append({"batch": 0})
      files.write(mirror.path / "table.md", "table")
      while not self.bucket.exists("gs://bucket/run/table.md"):
        pass
      records.append({"batch": 1})
      records.close()
      mirror.close()
    self.assertEqual(self.bucket.cat("gs://bucket/run/table.md"), b"table")
    resumed = remote.Mirror("output_dir", "gs://bucket/run", pull=False)
    self.assertEqual(journal.read(resumed.path / "journal" / "0.jsonl", {"a": 1}), [{"batch": 0}, {"batch": 1}])
    resumed.close()
    self.assertEqual(sorted(self.bucket.find("gs://bucket/run")), ["/bucket/run/journal/0.jsonl", "/bucket/run/table.md"])

  def test_processes_see_what_others_write(self):
    one, other = (remote.Mirror("output_dir", "gs://bucket/run", pull=True) for _ in range(2))
    (one.path / "1.txt").write_text("one")
    (other.path / "2.txt").write_text("two")
    for mirror in (one, other, one):
      mirror.sync()
    for mirror in (one, other):
      self.assertEqual(sorted(path.name for path in mirror.path.iterdir()), ["1.txt", "2.txt"])
      mirror.close()

  def test_a_sweep_into_a_bucket(self):
    module = mock.Mock(Settings=Toy, run=lambda settings: settings.number, summarize=lambda n: {"n": n})
    with mock.patch.dict(sweep.COMMANDS, toy=module):
      sweep.run(sweep.Settings(command="toy", set=("number=1,2",), output_dir="gs://bucket/sweep"))
    remote.close_all()
    self.assertIn(b"| 2 | 2 |", self.bucket.cat("gs://bucket/sweep/table.md"))

  def test_checkpoints_are_not_mirrored(self):
    for settings in (
      lambda: train.Settings(output_dir="gs://bucket/run"),
      lambda: convert.Settings(model="model", output_dir="s3://bucket/run"),
    ):
      with self.assertRaisesRegex(
        ValueError, "^output_dir: got '(gs|s3)://bucket/run', must be a local or mounted directory"
      ):
        settings()

  def test_what_cannot_be_reached(self):
    with self.assertRaisesRegex(ValueError, "^model: cannot read gs://bucket/nothing "):
      remote.fetch("model", "gs://bucket/nothing")
    with mock.patch.object(Bucket, "_open", side_effect=PermissionError("no access to\nthe bucket")):
      with self.assertRaisesRegex(
        ValueError, "^output_dir: cannot write to gs://bucket/a .PermissionError: no access to the"
      ):
        files.output_directory("output_dir", "gs://bucket/a")
    mirror = remote.Mirror("output_dir", "gs://bucket/b", pull=False)
    (mirror.path / "a.txt").write_text("kept")
    with mock.patch.object(Bucket, "_open", side_effect=PermissionError("no access")):
      with self.assertRaisesRegex(ValueError, "cannot upload to gs://bucket/b .*; the files are in (.*)") as caught:
        remote.close_all()
    kept = pathlib.Path(str(caught.exception).rpartition(" ")[2])
    self.assertEqual((kept / "a.txt").read_text(), "kept")
    shutil.rmtree(kept)
    with self.assertRaisesRegex(ValueError, "^data: cannot read s3://bucket/a .ImportError: Install s3fs"):
      remote.fetch("data", "s3://bucket/a")


if __name__ == "__main__":
  absltest.main()
