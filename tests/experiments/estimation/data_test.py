"""Fingerprints differ where data or models differ; data files are read, or refused by line."""

import dataclasses
import json
import pathlib
import tempfile
from unittest import mock

from absl.testing import absltest
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.estimation import data


class DataTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enter_context(tempfile.TemporaryDirectory()))

  def test_parameters(self):
    params = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(4, np.float16)}
    same = data.params_fingerprint({name: jnp.asarray(value) for name, value in params.items()})
    self.assertEqual(data.params_fingerprint(params), same)
    swapped, tiny = params["a"][::-1].copy(), params["a"].copy()
    tiny[0, 1] = np.nextafter(tiny[0, 1], np.float32(2))  # one bit
    for change in (dict(a=swapped), dict(a=tiny), dict(a=params["a"].reshape(3, 2)), dict(b=np.ones(4, np.float32))):
      self.assertNotEqual(data.params_fingerprint({**params, **change}), same)

  def test_examples(self):
    example = data.Example(np.zeros([2, 2, 3], np.uint8), "q", "a", "d")
    same = data.fingerprint([example, example])
    self.assertEqual(data.fingerprint([example, dataclasses.replace(example)]), same)
    for change in (
      dict(picture=np.ones([2, 2, 3], np.uint8)),
      dict(question="p"),
      dict(answer="b"),
      dict(dataset="e"),
      dict(picture=np.zeros([4, 1, 3], np.uint8)),
    ):
      self.assertNotEqual(data.fingerprint([example, dataclasses.replace(example, **change)]), same)

  def write(self, *rows):
    path = self.directory / "data.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return str(path)

  def test_file(self):
    pixels = np.random.default_rng(0).integers(0, 256, [5, 7, 3], np.uint8)
    Image.fromarray(pixels).save(self.directory / "picture.png")
    row = {"image": "picture.png", "question": "q?", "answer": "3", "dataset": "d"}
    first, second = data.from_jsonl(self.write(row, {**row, "answer": "4"}))
    np.testing.assert_array_equal(first.picture, pixels)
    self.assertEqual((first.question, first.answer, second.answer, first.dataset), ("q?", "3", "4", "d"))
    self.assertEqual(first.digest, second.digest)
    for bad in ("[]", "{", {"image": "picture.png"}, {**row, "image": "none.png"}):
      with self.assertRaisesRegex(ValueError, "^data: .*data.jsonl line 2: "):
        data.from_jsonl(self.write(row, bad))
    with self.assertRaisesRegex(ValueError, "^data: .* is empty"):
      data.from_jsonl(self.write())
    with self.assertRaisesRegex(ValueError, "^data: cannot read"):
      data.from_jsonl(str(self.directory / "none"))
    with self.assertRaisesRegex(ValueError, "^calibration_data: cannot read"):
      data.from_jsonl(str(self.directory / "none"), "calibration_data")

  def test_messages_name_the_picture(self):
    path = self.write({"image": "none.png", "question": "?", "answer": "1", "dataset": "d"})
    with self.assertRaisesRegex(ValueError, "^data: .*data.jsonl line 1: .*none.png does not exist"):
      data.from_jsonl(path)

  def test_batches_are_made_when_asked_for(self):
    examples = [data.Example(np.zeros([2, 2, 3], np.uint8), str(number), "a", "d") for number in range(5)]
    batches = data.Batches(
      "model", "params", "processor", examples, size=2, clip="clip", measures=("saliency",), pixels={"max_pixels": 9}
    )
    with mock.patch.object(data, "make_batch", side_effect=lambda *arguments: arguments) as make:
      self.assertLen(batches, 3)
      make.assert_not_called()
      self.assertEqual(batches[2], ("model", "params", "processor", examples[4:], "clip", ("saliency",), {"max_pixels": 9}))
      self.assertEqual([example for batch in batches for example in batch[3]], examples)

  def test_splits_share_no_picture(self):
    train, calibration, test = (
      {example.digest for example in data.from_digits(split, ["boxed"], 8)} for split in ("train", "calibration", "test")
    )
    self.assertEqual([len(train), len(calibration), len(test)], [8, 8, 8])
    self.assertEmpty(train & calibration | train & test | calibration & test)
    with self.assertRaisesRegex(ValueError, "dataset: got colour, the digits have color_to_digit"):
      data.from_digits("test", ["colour"], 1)


if __name__ == "__main__":
  absltest.main()
