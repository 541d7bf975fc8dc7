"""What is wrong with settings or output directories is said in one line by every command, before there are weights."""

import contextlib
import importlib
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from experiments import explore
from experiments.digits import embedded
from experiments.running import files
from models import registry
from models.checkpoints import hf
from models.checkpoints import params as params_lib

RATIO = (dict(keep_ratio=(1.5,)), "keep_ratio: got 1.5, must be (in|between) ")
SELECTOR = (dict(selector=("best",)), "selector: got 'best', allowed are hawk")
MODEL = (dict(model="/none"), "model: there is no directory '/none', and it is not a hub id .owner/name.")
LONG_MODEL = (dict(model="x" * 300), "model: there is no directory 'xxx")
HEADS = (dict(head_importance="preset:none"), "head_importance: .*none")
MISSING = (dict(head_importance="/none.json"), "head_importance: .*/none.json")
NUMBER = (dict(batch_size=0), "batch_size: got 0, must be at least 1")
LONG_ANSWER = (dict(max_new_tokens=9000), "max_new_tokens: got 9000")
MESH = (dict(mesh="fsdp:3"), "mesh: .*3")
PIXELS = (
  dict(min_pixels=10**6, max_pixels=1000),
  "min_pixels and max_pixels: got 1000000 and 1000, must be in this order",
)
# What each command needs, and what is wrong, with the message.
CASES = {
  "accuracy": ({}, [RATIO, SELECTOR, MODEL, LONG_MODEL, HEADS, MISSING, NUMBER, MESH]),
  "benchmark": (
    {},
    [
      RATIO,
      MODEL,
      (dict(preset="gpu"), "preset: got 'gpu', allowed are cpu"),
      (dict(dtype="int8"), "dtype: got 'int8', allowed are"),
      (dict(side=1), "sizes: got a side of 1 pixels, must be at least 28"),
      (dict(steps=10**6), "max_new_tokens: got 1000001"),
    ],
  ),
  "compare": (
    {},
    [
      RATIO,
      SELECTOR,
      MODEL,
      NUMBER,
      MESH,
      (dict(importance=("a=/none.json",)), "importance: .*/none.json"),
      (dict(data="/none.jsonl"), "data: cannot read '?/none.jsonl"),
      (dict(adaptive=("nobody",)), "adaptive: got nobody, the rows of HAWK are uniform"),
    ],
  ),
  "compile_tpu": (
    {},
    [
      RATIO,
      (dict(model_config="qwen"), "model_config: got 'qwen', allowed are"),
      (dict(topology="v9:2"), "topology: got 'v9:2'"),
      (dict(batch=0), "batch: got 0, must be at least 1"),
    ],
  ),
  "convert": (
    dict(model=str(embedded.DIRECTORY / "llava")),
    [
      MODEL,
      LONG_MODEL,
      (dict(dtype="int8"), "dtype: got 'int8', allowed are"),
      (dict(model=""), "model: must be given"),
      (dict(output_dir=""), "output_dir: must be given"),
    ],
  ),
  "digits_benchmark": ({}, [(dict(questions=0), "questions: got 0, must be at least 1")]),
  "evaluate": (
    dict(data=(str(embedded.DIRECTORY.parent / "benchmark_files" / "digits.tsv"),), limit=2),
    [RATIO, SELECTOR, MODEL, LONG_MODEL, HEADS, MISSING, NUMBER, LONG_ANSWER, MESH, PIXELS]
    + [(dict(data=("/none.tsv",)), "data: there is no file /none.tsv")],
  ),
  "generate": (
    {},
    [
      (dict(keep_ratio=1.5), RATIO[1]),
      (dict(selector="best"), SELECTOR[1]),
      (dict(temperature=-1.0), "temperature: got -1.0"),
      (dict(top_p=2.0), "top_p: got 2.0"),
      (dict(keep_mass=2.0), "keep_mass: got 2.0"),
      (dict(selector="fastv", keep_ratio=0.5, prune_layer=99), "prune_layer: got 99"),
      (dict(image=("/none.png",)), "images: /none.png"),
      (dict(messages="/none.json"), "messages: cannot read /none.json"),
      (dict(selector="cdpruner_clip", keep_ratio=0.5), "clip|selector"),
      *(MODEL, LONG_MODEL, HEADS, MISSING, LONG_ANSWER, MESH, PIXELS),
    ],
  ),
  "head_importance": (
    {},
    [
      MODEL,
      NUMBER,
      MESH,
      (dict(estimator="best"), "estimator: got 'best', allowed are ablation"),
      (dict(data="/none.jsonl"), "data: cannot read '?/none.jsonl"),
      (dict(dataset=("colors",)), "dataset: got 'colors', allowed are"),
    ],
  ),
  "study": ({}, [RATIO, (dict(model=("/none",)), MODEL[1]), (dict(examples=0), "examples: got 0, must be at least 1")]),
  "sweep": (
    dict(command="accuracy"),
    [
      (dict(command="dance"), "command: got 'dance', allowed are accuracy"),
      (dict(set=("keep_ratio=0.2,1.5",)), RATIO[1]),
      (dict(set=("colour=1",)), "set: .*colour"),
      (dict(shard="2/2"), "shard: got '2/2'"),
      (dict(config="/none.py"), "config: .*/none.py"),
    ],
  ),
  "train": (
    {},
    [
      (dict(architecture="big"), "architecture: got 'big', allowed are"),
      (dict(init_from="/none"), "init_from: there is no directory '/none'"),
      (dict(batch_size=0), NUMBER[1]),
      (dict(steps=-1), "steps: got -1"),
    ],
  ),
}
EXPLORE = [MODEL, LONG_MODEL, HEADS, MISSING, LONG_ANSWER, MESH, PIXELS]
# A file that each command writes.
RESULTS = {
  "accuracy": "accuracy.json",
  "benchmark": "benchmark.md",
  "compare": "compare.csv",
  "compile_tpu": "compile_tpu.json",
  "digits_benchmark": "digits.tsv",
  "evaluate": "report.html",
  "generate": "result.json",
  "head_importance": "head_importance.json",
  "sweep": "table.md",
  "train": "settings.json",
}


class EarlyChecksTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  @contextlib.contextmanager
  def refused(self, message):
    """A context that raises a ValueError of one line and touches no weights."""
    with contextlib.ExitStack() as stack:
      loaders = [
        stack.enter_context(mock.patch.object(module, name, side_effect=AssertionError("weights")))
        for module, name in ((registry, "load_params"), (hf, "read_param"), (params_lib, "init"))
      ]
      with self.assertRaisesRegex(ValueError, f"^({message})") as raised:
        yield
      self.assertNotIn("\n", str(raised.exception).strip())
      for loader in loaders:
        loader.assert_not_called()

  def run_command(self, name, output, **changes):
    module = importlib.import_module(f"experiments.{name}")
    given = {"output_dir": str(output), **CASES[name][0]}
    if name == "study":
      given["results_dir"] = str(self.directory / "results")
    module.run(module.Settings(**given | changes))

  @parameterized.named_parameters((name, name) for name in CASES)
  def test_settings(self, name):
    for changes, message in CASES[name][1]:
      with self.subTest(changes=changes), self.refused(message):
        self.run_command(name, self.directory / "out", **changes)

  def test_settings_of_explore(self):
    for changes, message in (*EXPLORE, (dict(image="/none.png"), "images: /none.png")):
      with self.subTest(changes=changes), self.refused(message):
        explore.make_server(explore.Settings(port=0, **changes))

  @parameterized.named_parameters((name, name) for name in CASES)
  def test_output_directories(self, name):
    (self.directory / "file").touch()
    taken = self.directory / "file"
    with self.refused("output_dir: .*file.* .(it is a file|Not a directory).|output_dir: .*file exists already"):
      self.run_command(name, taken)
    with self.refused("output_dir: .*'?.*/file/below.*Not a directory|output_dir: .*file"):
      self.run_command(name, taken / "below")

  @parameterized.named_parameters((name, *item) for name, item in zip(RESULTS, RESULTS.items()))
  def test_a_directory_in_the_place_of_a_result(self, name, result):
    (self.directory / "out" / result).mkdir(parents=True)
    with self.refused(f"output_dir: .*{result} is a directory, a file of this name is to be written"):
      self.run_command(name, self.directory / "out")

  @parameterized.parameters("compare", "evaluate", "head_importance", "train")
  def test_a_directory_in_use(self, name):
    with files.resumable_directory("output_dir", str(self.directory / "out")):
      with self.refused("output_dir: another run is using .*out; wait until it ends, or give another directory"):
        self.run_command(name, self.directory / "out")


if __name__ == "__main__":
  absltest.main()
