"""Checks of single arguments: what passes, and what the messages say."""

from absl.testing import absltest
from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from hawk_jax import checks


class ChecksTest(parameterized.TestCase):
  @parameterized.parameters(
    (lambda: checks.whole("a", True), "a: got True, must be a whole number of at least 0"),
    (lambda: checks.whole("a", 2.0, 1), "a: got 2.0, must be a whole number of at least 1"),
    (lambda: checks.whole("a", 9, 1, 8), "a: got 9, must be a whole number from 1 to 8"),
    (lambda: checks.whole("a", 10**5000, 1, 8), "a: got a very large int, must be"),
    (lambda: checks.real("a", "1", "positive"), "a: got '1', must be positive"),
    (lambda: checks.real("a", 10**400, "positive"), r"a: got 1000+\.\.\., must be positive"),
    (lambda: checks.real("a", False, "positive"), "a: got False, must be positive"),
    (lambda: checks.share("a", 0), r"a: got 0, must be in \(0, 1\]"),
    (lambda: checks.share("a", 1j), r"a: got 1j, must be in \(0, 1\]"),
    (lambda: checks.choice("a", ["b"], ("b", "c")), r"a: got \['b'\], allowed are b, c"),
    (lambda: checks.flag("a", 1), "a: got 1, must be True or False"),
    (lambda: checks.whole_array("a", [1.0], "whole numbers"), r"a: got float64 of shape \(1,\), must be whole numbers"),
    (lambda: checks.whole_array("a", [True], "whole numbers"), r"a: got bool of shape \(1,\), must be whole numbers"),
    (lambda: checks.whole_array("a", [2**70], "whole numbers"), r"a: got object of shape \(1,\), must be whole numbers"),
    (lambda: checks.real_array("a", [[1], [1, 2]], "numbers"), r"a: got \[\[1\], \[1, 2\]\], must be numbers"),
    (lambda: checks.real_array("a", [1j], "numbers"), r"a: got complex128 of shape \(1,\), must be numbers"),
    (lambda: checks.mask("a", [1, np.nan], "0 or 1"), "a: holds other values than 0 and 1, must be 0 or 1"),
    (lambda: checks.mask("a", [0, -1], "0 or 1"), "a: holds other values than 0 and 1"),
    (lambda: checks.mask("a", ["1"], "0 or 1"), r"a: got <U1 of shape \(1,\), must be 0 or 1"),
  )
  def test_refused(self, check, message):
    with self.assertRaisesRegex(ValueError, f"^{message}"):
      check()

  def test_passed(self):
    self.assertEqual(checks.whole("a", np.int64(3)), 3)
    self.assertEqual(checks.share("a", np.float32(0.5)), 0.5)
    self.assertEqual(checks.real_array("a", jnp.ones(2, jnp.bfloat16), "numbers").shape, (2,))
    np.testing.assert_array_equal(checks.mask("a", [1.0, 0.0], "0 or 1"), [True, False])

  def test_a_value_is_shown_on_one_short_line(self):
    self.assertEqual(checks.show("a"), "'a'")
    shown = checks.show(np.zeros([9, 9]))
    self.assertLen(shown, 80)
    self.assertNotIn("\n", shown)


if __name__ == "__main__":
  absltest.main()
