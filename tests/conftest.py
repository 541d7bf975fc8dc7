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
# Beginnings of the names of such tests: rules against their oracles on 200 cases each, random bad input, meshes, processes,
# models and estimators beyond the first of each kind, further kills of one command, single benchmarks, the notebook.
LONG = (
  "tests/fuzz_test.py",
  "tests/experiments/benchmark_test.py::BenchmarkTest::test_mesh",
  "tests/experiments/compare_test.py::CompareTest::test_adaptive_budget_has_the_same_mean_within_its_bound",
  "tests/experiments/compare_test.py::CompareTest::test_importances_rules_and_merges_are_crossed",
  "tests/experiments/digits/losses_test.py::ForwardTest::test_questions_that_share_a_cache_are_answered_as_if_each_were_alone0",
  "tests/experiments/digits/losses_test.py::ReadingTest::test_the_probes_of_a_batch_see_the_visual_tokens_alone0",
  "tests/experiments/estimation/estimators_test.py::TinyTest::test_question_sensitivity_of_a_later_layer",
  "tests/experiments/estimation/outcomes_test.py::OutcomesTest::test_right_is_what_decoding_answers0",
  "tests/experiments/evaluate_test.py::EvaluateTest::test_rows_of_several_importances_rules_and_merges",
  "tests/experiments/evaluate_test.py::EvaluateTest::test_two_processes_equal_one",
  "tests/experiments/explore_test.py::CallTest::test_stages_in_the_decoder",
  "tests/experiments/fuzz_test.py",
  "tests/experiments/head_importance_test.py::RunsTest::test_killed_and_started_again_equals_undisturbed1",
  "tests/experiments/head_importance_test.py::RunsTest::test_killed_and_started_again_equals_undisturbed2",
  "tests/experiments/head_importance_test.py::RunsTest::test_small_pictures_in_bfloat160",
  "tests/experiments/head_importance_test.py::RunsTest::test_small_pictures_in_bfloat164",
  "tests/experiments/speed/ablation_test.py",
  "tests/experiments/speed/precision_test.py",
  "tests/experiments/speed/selection_test.py",
  "tests/experiments/speed/throughput_test.py",
  "tests/experiments/tour_test.py",
  "tests/hawk_jax/extreme_values_test.py",
  "tests/hawk_jax/rules_in_pruning_test.py",
  "tests/hawk_jax/selectors/merging_test.py::SelectTest::test_every_rule_keeps_its_budget_with_everything_on",
  "tests/hawk_jax/selectors/rules_test.py",
  "tests/models/bad_input_test.py::BadInputTest::test_pack_of_every_port",
  "tests/models/measures_test.py",
  "tests/models/qwen2_5_vl/parity_test.py::ParityTest::test_each_row_equals_itself_alone1",
  "tests/models/qwen2_5_vl/parity_test.py::ParityTest::test_each_row_equals_itself_alone2",
  "tests/models/qwen3_vl/pruning_test.py::DeepStackTest::test_without_it_the_answer_is_another",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations1",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations3",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations4",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations6",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations7",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations8",
  "tests/models/qwen3_vl/pruning_test.py::PruningTest::test_ratios_and_normalizations9",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device1",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device2",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device3",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device4",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device5",
  "tests/models/sharding_test.py::ShardingTest::test_generation_equals_one_device6",
  "tests/models/sharding_test.py::ShardingTest::test_two_processes1",
  "tests/models/tower_test.py::KeepAllTest",
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
