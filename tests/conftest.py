"""Tests that take long and guard what seldom changes run with `./test.sh --all`."""

import pytest

# Beginnings of the names of such tests: rules against their oracles on 200 cases each, random bad input, and meshes and
# processes of the ports beyond the first of each kind.
LONG = (
  "tests/fuzz_test.py",
  "tests/experiments/fuzz_test.py",
  "tests/hawk_jax/extreme_values_test.py",
  "tests/hawk_jax/rules_in_pruning_test.py",
  "tests/hawk_jax/selectors/rules_test.py",
  "tests/models/bad_input_test.py::BadInputTest::test_pack_of_every_port",
  "tests/models/measures_test.py",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device2",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device4",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device5",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device6",
  "tests/models/sharding_test.py::ShardingTest::test_two_processes1",
  "tests/models/tower_test.py::KeepAllTest",
  "tests/experiments/compare_test.py::CompareTest::test_importances_rules_and_merges_are_crossed",
  "tests/experiments/evaluate_test.py::EvaluateTest::test_rows_of_several_importances_rules_and_merges",
  "tests/experiments/speed/selection_test.py",
)


def pytest_addoption(parser):
  parser.addoption("--all", action="store_true", help="Run the long tests too.")


def pytest_collection_modifyitems(config, items):
  if config.getoption("--all") or any("::" in argument for argument in config.args):
    return
  named = [argument for argument in config.args if argument.endswith(".py")]
  for item in items:
    if item.nodeid.startswith(LONG) and not item.nodeid.startswith(tuple(named)):
      item.add_marker(pytest.mark.skip(reason="takes long; ./test.sh --all runs it"))
