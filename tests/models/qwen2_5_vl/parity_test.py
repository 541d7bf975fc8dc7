"""Qwen2.5-VL against transformers' torch model in float32 (recorded by tests/reference/make_goldens.py)."""

import functools
import json
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import jax
import numpy as np
from safetensors import safe_open

import models
from models.qwen2_5_vl import config as config_lib
from models.qwen2_5_vl.model import Qwen2_5_VL
from tests.reference import checks
from tests.reference import qwen2_5_vl as reference
from tests.reference import tiny

# Newer tensor names with a nested config, and the hub's older names with a flat one.
HUB_STYLE = {"gqa": False, "mha_tied": True, "mqa": True}


@functools.cache
def goldens():
  """The recorded arrays, and the file's metadata."""
  with safe_open(reference.GOLDENS, "numpy") as file:
    return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()


@functools.cache
def load(config_name):
  """Model and parameters, by way of a checkpoint on disk."""
  with tempfile.TemporaryDirectory() as directory:
    reference.write_checkpoint(directory, config_name, hub_style=HUB_STYLE[config_name])
    return models.load_model(directory)


@functools.cache
def alone(config_name, case):
  """One prompt's features and logits."""
  return checks.run(*load(config_name), reference.case(case))[0]


@functools.cache
def batched(config_name):
  """Features and logits of every row of the mixed batch."""
  return checks.run(*load(config_name), reference.batch())


def check_row(config_name, case, features, logits):
  """Compares one prompt's features and logits with transformers'."""
  expected, _ = goldens()
  key = f"{config_name}/{case}"
  checks.close(features[reference.feature_rows(len(features))], expected[f"{key}/features"], f"{key} features")
  checks.close(logits[reference.logit_rows(len(logits))], expected[f"{key}/logits"], f"{key} logits")


CASES = [
  dict(testcase_name=f"_{config_name}_{case}", config_name=config_name, case=case)
  for config_name, cases in reference.PARITY_CASES.items()
  for case in cases
]


class GoldensTest(parameterized.TestCase):
  @parameterized.parameters(*reference.CONFIGS)
  def test_belong_to_these_weights_and_prompts(self, config_name):
    expected, metadata = goldens()
    np.testing.assert_allclose(tiny.fingerprint(reference, config_name), expected[f"{config_name}/fingerprint"], rtol=1e-5)
    self.assertEqual(
      json.loads(metadata["tensor_names"])[config_name], sorted(reference.shapes(reference.CONFIGS[config_name]))
    )

  @parameterized.parameters(*reference.CONFIGS)
  def test_mixed_batch_holds_every_case(self, config_name):
    self.assertCountEqual(reference.BATCH, reference.PARITY_CASES[config_name])


class ParityTest(parameterized.TestCase):
  @parameterized.named_parameters(*CASES)
  def test_features_and_logits(self, config_name, case):
    check_row(config_name, case, *alone(config_name, case))

  @parameterized.parameters(*reference.CONFIGS)
  def test_mixed_batch(self, config_name):
    for case, row in zip(reference.BATCH, batched(config_name), strict=True):
      check_row(config_name, case, *row)

  @parameterized.parameters(*reference.CONFIGS)
  def test_each_row_equals_itself_alone(self, config_name):
    for case, (features, logits) in zip(reference.BATCH, batched(config_name), strict=True):
      own_features, own_logits = alone(config_name, case)
      checks.close(features, own_features, f"{case} features")
      checks.close(logits, own_logits, f"{case} logits")

  def test_padding_on_the_left_packs_the_same(self):
    model, _ = load("gqa")
    right, left = (model.pack(**reference.batch(padding=padding)) for padding in ("right", "left"))
    jax.tree.map(np.testing.assert_array_equal, left, right)

  @parameterized.parameters(*reference.CONFIGS)
  def test_greedy_tokens_of_mixed_batch(self, config_name):
    tokens = checks.answer(*load(config_name), reference.batch(), reference.NEW_TOKENS)
    for case, row in zip(reference.BATCH, tokens, strict=True):
      np.testing.assert_array_equal(row, goldens()[0][f"{config_name}/{case}/tokens"], err_msg=case)

  @parameterized.parameters("text_only", "three_images", "video")
  def test_greedy_tokens_alone(self, case):
    tokens = checks.answer(*load("gqa"), reference.case(case), reference.NEW_TOKENS)
    np.testing.assert_array_equal(tokens[0], goldens()[0][f"gqa/{case}/tokens"])


START, END, IMAGE, VIDEO = reference.VISION_START, reference.VISION_END, reference.IMAGE, reference.VIDEO


class PositionsTest(absltest.TestCase):
  """The model's own rule, on the videos where transformers 5 differs from the model's own rule."""

  def positions(self, input_ids, tokens_per_second=2, **grids):
    """Each row's positions [S, 3] (time, row, column), and where its answer starts."""
    content = dict(reference.CONFIGS["gqa"])
    content["vision_config"] = {**content["vision_config"], "tokens_per_second": tokens_per_second}
    model = Qwen2_5_VL(config_lib.from_hf(content))
    arrays = {}
    for kind, pixels in (("image", "pixel_values"), ("video", "pixel_values_videos")):
      if kind in grids:
        arrays[f"{kind}_grid_thw"] = np.array(grids[kind])
        arrays[pixels] = np.zeros([np.prod(grids[kind], axis=1).sum(), 3 * 2 * 14 * 14], np.float32)
    if "seconds" in grids:
      arrays["second_per_grid_ts"] = grids["seconds"]
    length = max(map(len, input_ids))
    mask = [[1] * len(row) + [0] * (length - len(row)) for row in input_ids]
    padded = [row + [0] * (length - len(row)) for row in input_ids]
    prompt = model.pack(input_ids=padded, attention_mask=mask, **arrays).prompt
    rows = []
    for number, row in enumerate(input_ids):
      out = np.full([len(row), 3], -1)
      for order, positions in ((prompt.text_order, prompt.text_positions), (prompt.visual_order, prompt.visual_positions)):
        real = order[number] >= 0
        out[order[number, real]] = positions[number, real]
      rows.append(out.tolist())
    return rows, prompt.next_position.tolist()

  def test_text_counts_up(self):
    rows, following = self.positions([[7, 8, 9], [7]])
    self.assertEqual(rows, [[[0, 0, 0], [1, 1, 1], [2, 2, 2]], [[0, 0, 0]]])
    self.assertEqual(following, [3, 1])

  def test_text_goes_on_after_the_longest_side_of_a_picture(self):
    rows, following = self.positions([[7, START, IMAGE, IMAGE, IMAGE, END, 8]], image=[[1, 2, 6]])
    self.assertEqual(rows, [[[0, 0, 0], [1, 1, 1], [2, 2, 2], [2, 2, 3], [2, 2, 4], [5, 5, 5], [6, 6, 6]]])
    self.assertEqual(following, [7])

  def test_text_goes_on_after_the_time_of_a_long_video(self):
    # 4 frame groups, 2 tokens a second, 1 second a group: times 0, 2, 4, 6 upon 2.
    rows, following = self.positions([[7, START] + [VIDEO] * 8 + [END, 8]], video=[[4, 2, 4]], seconds=[1.0])
    self.assertEqual(
      rows,
      [
        [
          [0, 0, 0],
          [1, 1, 1],
          [2, 2, 2],
          [2, 2, 3],
          [4, 2, 2],
          [4, 2, 3],
          [6, 2, 2],
          [6, 2, 3],
          [8, 2, 2],
          [8, 2, 3],
          [9, 9, 9],
          [10, 10, 10],
        ]
      ],
    )
    self.assertEqual(following, [11])

  def test_rows_and_columns_repeat_with_time(self):
    rows, following = self.positions([[START] + [VIDEO] * 8 + [END]], video=[[2, 4, 4]], seconds=[2.5])
    self.assertEqual(
      rows, [[[0, 0, 0], [1, 1, 1], [1, 1, 2], [1, 2, 1], [1, 2, 2], [6, 1, 1], [6, 1, 2], [6, 2, 1], [6, 2, 2], [7, 7, 7]]]
    )
    self.assertEqual(following, [8])

  def test_times_are_rounded_down(self):
    # 0.7 seconds * 2 a second = 1.4: 0, 1.4, 2.8, 4.2, 5.6.
    rows, following = self.positions([[START] + [VIDEO] * 5 + [END]], video=[[5, 2, 2]], seconds=[0.7])
    self.assertEqual([position[0] for position in rows[0]], [0, 1, 2, 3, 5, 6, 7])
    self.assertEqual(following, [8])

  def test_tokens_per_second(self):
    # 0.7 * 4 = 2.8: 0, 2.8, 5.6.
    rows, following = self.positions([[START] + [VIDEO] * 3 + [END]], video=[[3, 2, 2]], seconds=[0.7], tokens_per_second=4)
    self.assertEqual([position[0] for position in rows[0]], [0, 1, 3, 6, 7])
    self.assertEqual(following, [8])

  def test_a_second_a_group_if_not_given(self):
    rows, _ = self.positions([[START] + [VIDEO] * 3 + [END]], video=[[3, 2, 2]])
    self.assertEqual([position[0] for position in rows[0]], [0, 1, 3, 5, 6])

  def test_videos_so_fast_that_groups_share_a_time(self):
    rows, following = self.positions([[START] + [VIDEO] * 5 + [END]], video=[[5, 2, 2]], seconds=[0.2])
    self.assertEqual([position[0] for position in rows[0]], [0, 1, 1, 1, 2, 2, 3])
    self.assertEqual(following, [4])

  def test_each_video_of_a_batch_has_its_own_seconds(self):
    rows, following = self.positions(
      [[START] + [VIDEO] * 2 + [END, START] + [VIDEO] * 3 + [END], [START] + [VIDEO] * 2 + [END]],
      video=[[2, 2, 2], [3, 2, 2], [2, 2, 2]],
      seconds=[3.0, 1.0, 10.0],
    )
    # The first ends at time 1 + 6, so its END stands at 8, START at 9; the second runs 10, 12, 14.
    self.assertEqual([position[0] for position in rows[0]], [0, 1, 7, 8, 9, 10, 12, 14, 15])
    self.assertEqual([position[1] for position in rows[0]], [0, 1, 1, 8, 9, 10, 10, 10, 15])
    self.assertEqual([position[0] for position in rows[1]], [0, 1, 21, 22])
    self.assertEqual(following, [16, 23])

  def test_pictures_do_not_run_through_time(self):
    rows, following = self.positions(
      [[START, IMAGE, END, START] + [VIDEO] * 2 + [END, START, IMAGE, END]],
      image=[[1, 2, 2], [1, 2, 2]],
      video=[[2, 2, 2]],
      seconds=[4.0],
    )
    self.assertEqual([position[0] for position in rows[0]], [0, 1, 2, 3, 4, 12, 13, 14, 15, 16])
    self.assertEqual([position[2] for position in rows[0]], [0, 1, 2, 3, 4, 4, 13, 14, 15, 16])
    self.assertEqual(following, [17])


if __name__ == "__main__":
  absltest.main()
