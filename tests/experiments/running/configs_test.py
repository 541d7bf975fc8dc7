"""Config files: what they set, what explicit flags override, and what is refused."""

import dataclasses
import pathlib
import subprocess
import sys
import tempfile

from absl import flags
from absl.testing import absltest
from absl.testing import parameterized

from experiments import compare
from experiments import evaluate
from experiments import generate
from experiments import study
from experiments import train
from experiments.running import command
from experiments.running import configs
from experiments.running import processes

ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings(command.Settings):
  """One field of each type."""

  name: str = command.option("a", "A name.")
  optional: str | None = command.option("b", "Another name.")
  number: int = command.option(3, "A number.", least=1)
  share: float | None = command.option(None, "A share.")
  switch: bool = command.option(False, "A switch.")
  size: tuple[float, ...] = command.option((0.5,), "Some sizes.")


class ConfigTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    holder = tempfile.TemporaryDirectory()
    self.addCleanup(holder.cleanup)
    self.path = pathlib.Path(holder.name) / "toy.py"

  def write(self, content):
    self.path.write_text(f"def get_config(arguments=''):\n  return {content}\n")

  def parse(self, *arguments, config=None, kind=Settings):
    """Settings from a config file, this test's by default, and flags."""
    kinds, values = (kind, processes.Options), flags.FlagValues()
    for each in kinds:
      command.define_flags(each, values)
    values(["program", *arguments])
    loaded = configs.load(str(config or self.path), [name for each in kinds for name in command.names_of(each)])
    return [command.read_flags(each, values, loaded.values) for each in kinds]

  def test_values_of_every_type(self):
    self.write("{'name': 'c', 'optional': None, 'number': 7, 'share': 1, 'switch': True, 'size': [1, 2.5]}")
    settings, _ = self.parse()
    self.assertEqual(settings, Settings(name="c", optional=None, number=7, share=1.0, switch=True, size=(1.0, 2.5)))

  def test_one_value_stands_for_a_list_of_one(self):
    self.write("{'size': 0.25}")
    self.assertEqual(self.parse()[0].size, (0.25,))

  def test_explicit_flags_win(self):
    self.write("{'number': 7, 'size': (1, 2), 'switch': True, 'distributed': True}")
    settings, options = self.parse("--number=3", "--size=9", "--noswitch", "--nodistributed")
    self.assertEqual((settings, options.distributed), (Settings(number=3, size=(9.0,)), False))
    self.assertTrue(self.parse()[1].distributed)

  @parameterized.parameters(
    ("{'number': 'x'}", "^number: got 'x' in the config, must be a whole number$"),
    ("{'number': 1.5}", "number: got 1.5"),
    ("{'number': True}", "number: got True"),
    ("{'number': None}", "number: got None"),
    ("{'number': 0}", "number: got 0, must be at least 1"),
    ("{'switch': 1}", "switch: got 1 in the config, must be True or False"),
    ("{'share': 'x'}", "must be a number or None"),
    ("{'size': (1, 'x')}", "size: got 'x' in the config, must be a number, or a list of such"),
    ("{'name': ('a', 'b')}", "name: got .* must be text"),
    ("{'nmae': 'c'}", "toy.py: unknown key 'nmae'; did you mean name?"),
    ("{'zzz': 'c'}", "unknown key 'zzz'; allowed are "),
    ("3", "must return a ConfigDict or a dict, got int"),
    ("unknown", "^config: .*toy.py: NameError: name 'unknown' is not defined"),
  )
  def test_refused(self, content, message):
    self.write(content)
    with self.assertRaisesRegex(ValueError, message):
      self.parse()

  def test_no_such_file(self):
    with self.assertRaisesRegex(ValueError, "config: there is no file /no/such.py"):
      self.parse(config="/no/such.py")

  def test_a_bad_argument_takes_one_line(self):
    done = subprocess.run(
      [sys.executable, "-m", "experiments.accuracy", "--config=experiments/configs/digits.py:lava"],
      cwd=ROOT,
      capture_output=True,
      text=True,
    )
    self.assertEqual(
      (done.returncode, done.stderr), (2, "error: config: arguments: unknown key 'lava'; did you mean llava?\n")
    )

  def test_hyper(self):
    self.path.write_text("def get_config(x='a'):\n  return {}\n\ndef get_hyper(x='a'):\n  return {'name': [x, 'b']}\n")
    self.assertEqual(configs.load(str(self.path), ["name"]).hyper, {"name": ["a", "b"]})
    self.assertEqual(configs.load(f"{self.path}:c", ["name"]).hyper, {"name": ["c", "b"]})
    self.write("{}")
    self.assertIsNone(configs.load(str(self.path), []).hyper)

  def test_arguments(self):
    defaults = dict(native=False, keep=None, size="7b", count=1)
    self.assertEqual(configs.parse_arguments("", **defaults), defaults)
    self.assertEqual(
      configs.parse_arguments("native,keep=0.2,size=72b,count=3", **defaults),
      dict(native=True, keep=0.2, size="72b", count=3),
    )
    for text, message in (("natve", "mean native"), ("native=1", "takes no value"), ("count=x", "count: got 'x'")):
      with self.assertRaisesRegex(ValueError, message):
        configs.parse_arguments(text, **defaults)

  @parameterized.parameters(
    (evaluate, "digits.py"),
    (evaluate, "digits.py:llava"),
    (evaluate, "qwen7b.py"),
    (evaluate, "qwen7b.py:native,keep=0.2,slice"),
    (evaluate, "qwen2_5_vl.py:size=72b,slice"),
    (evaluate, "llava.py:name=next-7b"),
    (generate, "qwen2_5_vl.py:size=3b"),
    (generate, "llava.py"),
  )
  def test_committed_configs(self, module, name):
    data = ["--data=digits.tsv"] if module is evaluate else []
    settings, options = self.parse(*data, config=ROOT / "experiments" / "configs" / name, kind=module.Settings)
    self.assertEqual(options.distributed, "slice" in name)
    self.assertNotEmpty(settings.model)

  @parameterized.parameters(("", "qwen2_5_vl"), (":llava", "llava"))
  def test_models_without_losses_on_heads(self, arguments, architecture):
    settings, _ = self.parse(config=ROOT / "experiments" / "configs" / f"unshaped.py{arguments}", kind=train.Settings)
    self.assertEqual(settings.architecture, architecture)
    self.assertFalse(settings.point_first or settings.point_middle)
    self.assertEqual(settings.auxiliary, ("early",))

  def test_the_study_of_models_without_losses_on_heads(self):
    path = ROOT / "experiments" / "configs" / "unshaped_study.py"
    whole, _ = self.parse(config=path, kind=study.Settings)
    seeds = {name: sum(name in model for model in whole.model) for name in ("unshaped_qwen2_5_vl_", "unshaped_llava_")}
    self.assertEqual(set(seeds.values()), {len(whole.model) // 2})
    self.assertGreater(len(whole.model), 2)
    for model in whole.model:
      self.assertTrue((pathlib.Path(model) / "config.json").exists())
    self.assertEqual((whole.score_layer, whole.selector, whole.timing_rounds), (0, compare.RIVALS, 0))
    few, _ = self.parse(config=f"{path}:few,layer=1", kind=study.Settings)
    self.assertEqual(few.model, whole.model)
    self.assertEqual((few.score_layer, few.merge, len(few.selector)), (1, ("none",), 3))
    self.assertNotEqual(few.output_dir, whole.output_dir)


if __name__ == "__main__":
  absltest.main()
