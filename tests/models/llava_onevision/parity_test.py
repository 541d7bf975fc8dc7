"""LLaVA-OneVision against transformers' torch model in float32 (recorded by tests/reference/make_goldens.py)."""

from absl.testing import absltest

from tests.reference import llava_onevision as reference
from tests.reference import parity

ParityTest = parity.make_test(
  reference,
  alone=[("untied", case) for case in ("square", "scaled_down_wide", "several", "video", "image_and_video")],
  answered=[("untied", "square")],
  packed=["untied"],
)


if __name__ == "__main__":
  absltest.main()
