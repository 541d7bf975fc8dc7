"""Compiled programs are let go before a process has more memory maps than Linux allows."""

import pathlib
import tempfile

from absl.testing import absltest
import jax
import jax.numpy as jnp

from experiments.running import compilation_cache


class ReleaseTest(absltest.TestCase):
  def test_programs_are_let_go_where_maps_are_many(self):
    traced = []

    @jax.jit
    def double(x):
      traced.append(x)
      return 2 * x

    directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    maps, limit = directory / "maps", directory / "limit"
    maps.write_text("a map\n" * 51)
    for allowed, released in ((102, False), (101, True)):
      traced.clear()
      double(jnp.ones(3))
      limit.write_text(f"{allowed}\n")
      before = len(traced)
      self.assertEqual(compilation_cache.release_if_many(str(maps), str(limit)), released)
      double(jnp.ones(3))
      self.assertEqual(len(traced) - before, int(released))

  def test_other_systems_have_no_limit(self):
    self.assertFalse(compilation_cache.release_if_many("/no/such/file", "/no/such/file"))


if __name__ == "__main__":
  absltest.main()
