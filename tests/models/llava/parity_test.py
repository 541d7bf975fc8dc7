"""LLaVA-1.5 and LLaVA-NeXT against transformers' torch models in float32 (recorded by tests/reference/make_goldens.py)."""

from absl.testing import absltest

from tests.reference import llava as reference
from tests.reference import parity

ParityTest = parity.make_test(
  reference,
  alone=[(config_name, case) for config_name in ("llama", "full", "next") for case in reference.PARITY_CASES[config_name]],
  answered=[("llama", "one"), ("llama", "two")],
  packed=["llama", "next"],
)


if __name__ == "__main__":
  absltest.main()
