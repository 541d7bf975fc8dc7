"""The notebook runs, and its committed output is what it prints."""

import contextlib
import io
import json
import os
import pathlib

from absl.testing import absltest
import matplotlib

matplotlib.use("Agg")

from matplotlib import pyplot as plt  # noqa: E402

NOTEBOOK = pathlib.Path(__file__).parents[2] / "docs" / "tour.ipynb"


class TourTest(absltest.TestCase):
  def test_every_cell_runs_and_those_marked_print_what_is_committed(self):
    self.addCleanup(os.chdir, pathlib.Path.cwd())
    os.chdir(NOTEBOOK.parents[1])
    cells = [cell for cell in json.loads(NOTEBOOK.read_text())["cells"] if cell["cell_type"] == "code"]
    names, pictures = {}, 0
    for number, cell in enumerate(cells):
      with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(compile("".join(cell["source"]), f"cell {number}", "exec"), names)
      pictures += len(plt.get_fignums())
      plt.close("all")
      committed = [output for output in cell["outputs"] if output["output_type"] == "stream"]
      if "same" in cell["metadata"].get("tags", ()):
        self.assertEqual(printed.getvalue(), "".join("".join(output["text"]) for output in committed))
      self.assertFalse([output for output in cell["outputs"] if output["output_type"] == "error"], number)
    shown = [output for cell in cells for output in cell["outputs"] if "image/png" in output.get("data", {})]
    self.assertLen(shown, pictures)
    self.assertGreater(names["learned"][:4].sum(), 0.5)


if __name__ == "__main__":
  absltest.main()
