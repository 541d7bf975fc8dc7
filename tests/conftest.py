"""Tests that take long and guard what seldom changes run with `./test.sh --all`.

Among them are tests of the port contract whose subject is code that all ports share, so that by default they run on one
Qwen, one LLaVA and the port with experts. What is a port's own runs for every port: packing, positions, and the port's
parity_test.py and pruning_test.py, which compare batches with single rows and pruning with a recompute too.
"""

import pytest

from experiments.running import compilation_cache

# Tests of the port contract whose subject is shared code, and the ports on which only `--all` runs them.
SHARED = (
  "every_selector",
  "row_of_a_batch_equals_itself_alone",
  "prefill_ends_like_the_whole_forward",
  "pruned_equals_a_recompute_without_cache",
)
LATER_PORTS = ("internvl", "llava_next", "llava_onevision", "qwen3_vl")
# Beginnings of the names of such tests: rules against their oracles on 200 cases each, random bad input, meshes and
# processes of the ports beyond the first of each kind, a third kill of one command, and benchmarks of single parts.
LONG = (
  "tests/fuzz_test.py",
  "tests/experiments/fuzz_test.py",
  "tests/hawk_jax/extreme_values_test.py",
  "tests/hawk_jax/rules_in_pruning_test.py",
  "tests/hawk_jax/selectors/rules_test.py",
  "tests/models/bad_input_test.py::BadInputTest::test_pack_of_every_port",
  "tests/models/measures_test.py",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device1",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device2",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device4",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device5",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device6",
  "tests/models/sharding_test.py::ShardingTest::test_two_processes1",
  "tests/models/tower_test.py::KeepAllTest",
  "tests/experiments/compare_test.py::CompareTest::test_importances_rules_and_merges_are_crossed",
  "tests/experiments/evaluate_test.py::EvaluateTest::test_rows_of_several_importances_rules_and_merges",
  "tests/experiments/head_importance_test.py::RunsTest::test_killed_and_started_again_equals_undisturbed2",
  "tests/experiments/speed/ablation_test.py",
  "tests/experiments/speed/selection_test.py",
  "tests/experiments/speed/throughput_test.py",
)
LONG_PORTS = {
  f"tests/models/port_contract_test.py::PortContractTest::test_{test}_{port}" for test in SHARED for port in LATER_PORTS
}


@pytest.fixture(autouse=True, scope="module")
def _memory_maps():
  """Two thousand tests in a process compile more programs than a process may hold."""
  yield
  compilation_cache.release_if_many()


def pytest_addoption(parser):
  parser.addoption("--all", action="store_true", help="Run the long tests too.")


def pytest_collection_modifyitems(config, items):
  if config.getoption("--all") or any("::" in argument for argument in config.args):
    return
  named = [argument for argument in config.args if argument.endswith(".py")]
  for item in items:
    if (item.nodeid.startswith(LONG) or item.nodeid in LONG_PORTS) and not item.nodeid.startswith(tuple(named)):
      item.add_marker(pytest.mark.skip(reason="takes long; ./test.sh --all runs it"))
