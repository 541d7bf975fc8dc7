"""metrics.jsonl, its copies for TensorBoard and Weights & Biases, and traces."""

import contextlib
import importlib.util
import pathlib
import sys
import tempfile
import types
from unittest import mock

from absl.testing import absltest
import jax
import jax.numpy as jnp

from experiments.running import watching
from tests.reference import limits


class WatchTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  @contextlib.contextmanager
  def watch(self, begun=0, **settings):
    with contextlib.closing(watching.Watch(watching.Settings(**settings), self.directory)) as watch:
      watch.begin(begun)
      yield watch

  def lines(self):
    return [
      {name: value for name, value in line.items() if name != "time"}
      for line in watching.read(self.directory / "metrics.jsonl")
    ]

  def test_lines(self):
    with self.watch() as watch:
      watch.write(1, loss=jnp.float32(0.5), rate=2)
      self.assertEqual(self.lines(), [{"step": 1, "loss": 0.5, "rate": 2.0}])  # at once, not at the end
      watch.write(2, loss=0.25)
    self.assertLen(self.lines(), 2)

  def test_a_resumed_run_replaces_the_steps_that_it_runs_again(self):
    with self.watch() as watch:
      for step in range(1, 5):
        watch.write(step, loss=step)
    with open(self.directory / "metrics.jsonl", "a") as file:
      file.write('{"step": 5, "lo')  # the run was killed
    with self.watch(begun=2) as watch:
      watch.write(3, loss=30)
    self.assertEqual([(line["step"], line["loss"]) for line in self.lines()], [(1, 1), (2, 2), (3, 30)])

  def test_damaged_lines_are_dropped(self):
    (self.directory / "metrics.jsonl").write_bytes(
      b'[1]\n{}\n{"step": 1}\n{"step": null}\n\xff\n{"step": "x"}\n' + b"[" * 99_999
    )
    with self.watch(begun=2) as watch:
      watch.write(3, loss=1)
    self.assertEqual([line["step"] for line in self.lines()], [1, 3])

  def test_a_full_disk_is_named(self):
    with self.watch() as watch:
      watch.write(1, loss=1)
      with limits.file_size(10), self.assertRaisesRegex(OSError, "File too large: '.*metrics.jsonl'"):
        watch.write(2, loss=1)

  def test_a_finished_run_started_again_writes_nothing(self):
    for _ in range(2):
      with self.watch(begun=1) as watch:
        watch.write(1, loss=1)
        watch.write(1, score=2)
    self.assertEqual(self.lines(), [{"step": 1, "loss": 1}, {"step": 1, "score": 2}])

  def test_steps_of_a_loop(self):
    watch = watching.Watch(watching.Settings(), self.directory)
    with contextlib.closing(watch), mock.patch.object(watch, "step", wraps=watch.step) as step:
      for number in watch.steps(range(3, 5), begun=3):
        watch.write(number + 1, loss=1)
    self.assertEqual([call.args for call in step.call_args_list], [(3,), (4,)])
    self.assertEqual([line["step"] for line in self.lines()], [4, 5])

  def test_only_the_first_process_writes(self):
    with mock.patch.object(jax, "process_index", return_value=1), self.watch(profile=1) as watch:
      for step in range(4):
        with watch.step(step):
          watch.write(step, loss=1)
    self.assertEmpty(list(self.directory.iterdir()))

  def test_nothing_optional_is_imported_unless_asked_for(self):
    with mock.patch.dict(sys.modules, tensorboardX=None, wandb=None), self.watch() as watch:
      watch.write(1, loss=1)

  def test_missing_packages_are_named(self):
    with mock.patch.object(importlib.util, "find_spec", return_value=None):
      for settings, package in (({"tensorboard": True}, "tensorboardX"), ({"wandb": "project"}, "wandb")):
        with self.assertRaisesRegex(ValueError, f"^{next(iter(settings))}: needs the package {package}"):
          watching.Settings(**settings)

  @absltest.skipIf(importlib.util.find_spec("tensorboardX") is None, "tensorboardX is not installed")
  def test_tensorboard_files_can_be_read_back(self):
    from tensorboardX.proto import event_pb2

    with self.watch(tensorboard=True) as watch:
      watch.write(7, loss=0.5)
      watch.write(8, loss=0.25)
    (path,) = (self.directory / "tensorboard").iterdir()
    content, found, at = path.read_bytes(), [], 0
    while at < len(content):  # records: length, its checksum, content, its checksum
      length = int.from_bytes(content[at : at + 8], "little")
      event = event_pb2.Event.FromString(content[at + 12 : at + 12 + length])
      found += [(event.step, value.tag, value.simple_value) for value in event.summary.value]
      at += 16 + length
    self.assertEqual(found, [(7, "loss", 0.5), (8, "loss", 0.25)])

  def test_wandb(self):
    run = mock.Mock()
    fake = types.SimpleNamespace(init=mock.Mock(return_value=run), __spec__=mock.Mock())
    with mock.patch.dict(sys.modules, wandb=fake), self.watch(wandb="project") as watch:
      watch.write(3, loss=0.5)
    self.assertEqual(fake.init.call_args.kwargs["project"], "project")
    run.log.assert_called_once_with({"loss": 0.5}, step=3)
    run.finish.assert_called_once_with()

  def trace(self):
    """Names of all events in the trace."""
    (path,) = (self.directory / "profile").rglob("*.xplane.pb")
    data = jax.profiler.ProfileData.from_file(str(path))
    return [event for plane in data.planes for line in plane.lines for event in line.events]

  def test_profile_traces_steady_steps(self):
    with self.watch(begun=10, profile=2) as watch:
      for step in range(10, 16):
        with watch.step(step), jax.profiler.TraceAnnotation(f"stage {step}"):
          (jnp.ones(3) * step).block_until_ready()
    events = self.trace()
    self.assertEqual({event.name for event in events if event.name.startswith("stage ")}, {"stage 12", "stage 13"})
    steps = [dict(event.stats).get("step_num") for event in events if event.name == "step"]
    self.assertEqual(steps, [12, 13])

  def test_a_run_that_ends_early_leaves_its_trace(self):
    with self.watch(profile=5) as watch:
      for step in range(3):
        with watch.step(step):
          pass
    self.assertLen([event for event in self.trace() if event.name == "step"], 1)


if __name__ == "__main__":
  absltest.main()
