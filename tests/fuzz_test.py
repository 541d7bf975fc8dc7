"""A few hundred cases of random bad input; `python -m tests.fuzz` runs more."""

from unittest import mock

from absl.testing import absltest
from absl.testing import parameterized

from tests.fuzz import runner
from tests.fuzz import subjects

# Most cases take milliseconds; those of checkpoints and answers read files and compile programs.
CASES = {"generate": 20, "apply": 10, "files": 25, "weights": 6, "configs": 40, "templates": 15}


class FuzzTest(parameterized.TestCase):
  @parameterized.parameters(*subjects.SUBJECTS)
  def test_answers_rightly_or_refuses_clearly(self, name):
    report = runner.run(name, subjects.SUBJECTS[name], range(CASES.get(name, 40)))
    self.assertEmpty(report.findings, "\n".join(report.findings))
    self.assertGreater(report.answered, 0)
    if name != "masses":  # which take all numbers
      self.assertGreater(report.refused, 0)


class RunnerTest(absltest.TestCase):
  """The runner itself finds what it should."""

  def test_findings(self):
    def wrong(rng):
      assert rng.random() < 0, "a wrong answer"

    def inside(rng):
      [][0]  # noqa: B018

    def foreign(rng):
      int("a")  # a ValueError, but none of ours

    for case, message in ((wrong, "a wrong answer"), (inside, "IndexError"), (foreign, "invalid literal")):
      report = runner.run("some", case, range(3))
      self.assertLen(report.findings, 3)
      self.assertIn(message, report.findings[0])
      self.assertIn("--subject=some --first=0 --seed=0", report.findings[0])
    self.assertIn("       3", runner.summary({"some": report}))

  def test_hangs(self):
    def endless(rng):
      while True:
        pass

    with mock.patch.object(runner, "SECONDS", 0.1):
      self.assertIn("takes longer than 0.1 seconds", runner.run("some", endless, range(1)).findings[0])


if __name__ == "__main__":
  absltest.main()
