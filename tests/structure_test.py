"""The house: every module can be imported, imports run one way, and only what runs as a command has flags."""

import ast
import collections
import graphlib
import importlib
import pathlib
import pkgutil

from absl import flags
from absl.testing import absltest

import experiments

ROOT = pathlib.Path(__file__).parents[1]
PACKAGES = ("hawk_jax", "models", "experiments")
# These need packages that are not installed with the others: evaluation harnesses and torch.
OPTIONAL = (
  "experiments.evaluation.harness.lmms",
  "experiments.evaluation.harness.vlmevalkit",
  "experiments.speed.transformers_baseline",
)
BOTTOM = ("reporting", "running")


def sources():
  """Name and syntax tree of every module."""
  for package in PACKAGES:
    for path in sorted((ROOT / package).rglob("*.py")):
      parts = path.relative_to(ROOT).with_suffix("").parts
      yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), ast.parse(path.read_text())


def is_module(name):
  path = ROOT.joinpath(*name.split("."))
  return path.is_dir() or path.with_suffix(".py").is_file()


def imports(tree):
  """Names of our modules that a module imports, also within functions."""
  for node in ast.walk(tree):
    names = []
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, "relative import"
      below = [f"{node.module}.{alias.name}" for alias in node.names]
      names = [name if is_module(name) else node.module for name in below]
    yield from (name for name in names if name.split(".")[0] in PACKAGES)


class ImportTest(absltest.TestCase):
  def test_all_modules_can_be_imported_in_one_process_and_define_no_flag(self):
    names = [module.name for module in pkgutil.walk_packages(experiments.__path__, "experiments.")]
    self.assertContainsSubset(OPTIONAL, names)
    for name in names:
      if name not in OPTIONAL:
        with self.subTest(name):
          importlib.import_module(name)
    self.assertEmpty([module for module in flags.FLAGS.flags_by_module_dict() if module.startswith(PACKAGES)])


class StructureTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.imports = {name: set(imports(tree)) for name, tree in sources()}
    cls.rooms = {path.name for path in (ROOT / "experiments").iterdir() if (path / "__init__.py").is_file()}
    # For each room, the rooms and commands of experiments that it imports.
    cls.below = collections.defaultdict(set)
    entry = lambda name: name.split(".")[1] if name.startswith("experiments.") else None
    for name, imported in cls.imports.items():
      if entry(name) in cls.rooms:
        cls.below[entry(name)] |= {entry(other) for other in imported} - {entry(name), None}

  def test_imports_run_one_way(self):
    for name, imported in self.imports.items():
      above = PACKAGES[PACKAGES.index(name.split(".")[0]) + 1 :]
      self.assertEmpty([other for other in imported if other.split(".")[0] in above], name)

  def test_rooms_import_no_command(self):
    for room, below in self.below.items():
      self.assertContainsSubset(below, self.rooms, room)

  def test_no_circle_among_rooms(self):
    graphlib.TopologicalSorter(self.below).prepare()  # raises CycleError
    for room in BOTTOM:
      self.assertContainsSubset(self.below[room], BOTTOM, room)

  def test_at_most_twenty_entries(self):
    commands = [path.stem for path in (ROOT / "experiments").glob("*.py") if path.stem != "__init__"]
    self.assertLessEqual(len(commands) + len(self.rooms), 20, sorted(commands) + sorted(self.rooms))

  def test_comments_cite_only_documents_that_are_here(self):
    word = "METH" + "OD"  # in two parts, so that this file does not contain it
    cited = [
      str(path) for package in (*PACKAGES, "tests") for path in (ROOT / package).rglob("*.py") if word in path.read_text()
    ]
    self.assertEmpty(cited)


if __name__ == "__main__":
  absltest.main()
