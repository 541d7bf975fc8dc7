"""InternVL3 and InternVL3.5 against transformers' torch models in float32 (recorded by tests/reference/make_goldens.py)."""

from absl.testing import absltest

from tests.reference import internvl as reference
from tests.reference import parity

ParityTest = parity.make_test(
  reference,
  alone=[("qwen2", case) for case in reference.PARITY_CASES["qwen2"]],
  answered=[("qwen2", "one_tile"), ("qwen3", "one_tile")],
  packed=["qwen2"],
)


if __name__ == "__main__":
  absltest.main()
