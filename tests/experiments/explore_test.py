"""The explorer: its calls, and its page in a real browser (where there is one)."""

from http import client
import io
import json
import os
import pathlib
import tempfile
import threading
import time
import unittest
from unittest import mock

from absl.testing import absltest
import jax
import numpy as np
from PIL import Image

from experiments import explore
from experiments.digits import embedded
from experiments.reporting.explorer import server
from experiments.reporting.explorer import session
from hawk_jax import importance
from models import generation
from models.inputs import pictures
from tests.reference import browser

PICTURE = embedded.DIRECTORY / "picture.png"
STAGES = "decoder@1:0.2/last, decoder@2:0.05/change"
_compiled = []
jax.monitoring.register_event_duration_secs_listener(
  lambda name, _, **kwargs: _compiled.append(name) if name == "/jax/core/compile/backend_compile_duration" else None
)


def setUpModule():
  """One server for all tests, with two sizes of programs instead of four."""
  global served, port
  unittest.enterModuleContext(mock.patch.object(session, "_SHARES", (4, 1)))
  served = explore.make_server(explore.Settings(port=0, max_new_tokens=4, max_upload_mb=1))
  port = served.server_address[1]
  threading.Thread(target=served.serve_forever, daemon=True).start()


def tearDownModule():
  served.shutdown()
  served.server_close()


def call(name, body, **headers):
  """Status and content."""
  raw = isinstance(body, bytes)
  connection = client.HTTPConnection("127.0.0.1", port, timeout=300)
  headers = {"Content-Type": "application/octet-stream" if raw else "application/json", **headers}
  connection.request("POST", f"/{name}", body if raw else json.dumps(body), headers)
  answer = connection.getresponse()
  content = json.loads(answer.read())
  connection.close()
  return answer.status, content


def called(name, **body):
  """The content of a call that succeeds."""
  status, content = call(name, body)
  assert status == 200, content
  return content


class CallTest(absltest.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    cls.facts = called("start")
    cls.asked = called("ask", picture=cls.facts["picture"], text="Which digit is red?")
    cls.prune(cls)  # compiles the rule

  def prune(self, count=29, weights=None, rule="hawk", normalization="l2", stages=""):
    return called(
      "prune",
      question=self.asked["question"],
      weights=weights or [1] * 8,
      count=count,
      rule=rule,
      normalization=normalization,
      stages=stages,
    )

  def refused(self, name, body, status, message, **headers):
    found, content = call(name, body, **headers)
    self.assertEqual(found, status, content)
    self.assertRegex(content["error"], message)

  def test_a_question(self):
    asked = self.asked
    self.assertEqual((asked["answer"], asked["visual_tokens"], asked["views"]), ("0", 144, [[12, 12, 0]]))
    self.assertEqual(np.shape(asked["heads"]), (8, 144))
    pruned = self.prune()
    self.assertEqual((pruned["answer"], len(pruned["kept"]), len(pruned["fused"])), ("0", 29, 144))
    self.assertGreaterEqual(min(np.asarray(pruned["fused"])[pruned["kept"]]), np.sort(pruned["fused"])[-29])
    one = self.prune(weights=np.eye(8)[5].tolist())
    self.assertEqual(one["answer"], "5")  # this head looks at grey digits whatever the question
    heads = np.asarray(self.asked["heads"][5])
    np.testing.assert_allclose(one["fused"], heads / np.linalg.norm(heads), rtol=1e-3)

  def test_fifty_moves_compile_nothing_and_each_takes_less_than_a_second(self):
    rng, before = np.random.default_rng(0), len(_compiled)
    for _ in range(50):
      began = time.perf_counter()
      self.prune(count=int(rng.integers(1, 145)), weights=rng.uniform(size=8).tolist())
      self.assertLess(time.perf_counter() - began, 1.0)
    self.assertLen(_compiled, before)

  def test_vision_runs_once_per_picture_and_rounds_share_it(self):
    with mock.patch.object(generation, "encode", wraps=generation.encode) as encode:
      picture = call("upload", PICTURE.read_bytes())[1]["picture"]
      first = called("ask", picture=picture, text="Which digit is red?")
      second = called(
        "ask", picture=picture, text="Which digit is blue?", earlier=[["Which digit is red?", first["answer"]]]
      )
    self.assertEqual(encode.call_count, 1)
    self.assertGreater(second["text_tokens"], first["text_tokens"])
    self.assertNotEqual(second["heads"], first["heads"])

  def test_stages_in_the_decoder(self):
    self.assertIn("decoder@2:0.1/last", self.facts["stages"])
    weights = np.eye(8)[2].tolist()
    self.prune(stages=STAGES)  # compiles
    before = len(_compiled)
    for count in (3, 20, 40, 144):  # fewer than a stage leaves, and all
      found = self.prune(count=count, weights=weights, stages=STAGES)
      outer = set(found["kept"])
      self.assertLen(outer, count)
      counts = min(count, 29), min(count, 8)
      for stage, layer, most in zip(found["stages"], (1, 2), counts, strict=True):
        self.assertEqual((stage["layer"], len(stage["kept"])), (layer, most))
        self.assertLessEqual(set(stage["kept"]), outer)
        outer = set(stage["kept"])
      self.assertAlmostEqual(found["visual_tokens_per_layer"], (count + counts[0] + 2 * counts[1]) / 4)
    self.assertLen(_compiled, before)

  def test_other_rules(self):
    self.assertNotIn("fastv", self.facts["rules"])
    self.assertNotIn("cdpruner", self.facts["rules"])
    self.assertLen(self.prune(rule="divprune")["kept"], 29)

  def test_what_is_refused(self):
    asked = dict(question=self.asked["question"], weights=[1] * 8, count=9, rule="hawk", normalization="l2")
    refused = lambda message, **changed: self.refused("prune", {**asked, **changed}, 400, message)
    refused("head_importance: all weights are zero", weights=[0] * 8)
    refused("head_importance: got 3 weights", weights=[1] * 3)
    refused("must be an array of numbers", weights="x")
    refused("count: got 145", count=145)
    refused("count: got 'x'", count="x")
    refused("rule: got 'fastv', allowed", rule="fastv")
    refused("normalization: got 'l3'", normalization="l3")
    refused("question: it is no longer in memory", question="x")
    refused("stages: the share of 'decoder:2' must be", stages="decoder:2")
    refused("only stages in the decoder are allowed", stages="tower:0.5, input:0.2")
    refused("stages: layer of .*: got 99", stages="decoder@99:0.2")
    refused("stages: got 7, must be text", stages=7)
    self.refused("prune", {}, 400, "missing")
    self.refused("ask", {"picture": "x", "text": "?"}, 400, "picture: it is no longer in memory")
    self.refused("ask", {"picture": self.facts["picture"], "text": " "}, 400, "question: write one")
    self.refused("open", {"content": str(PICTURE)}, 404, "there is no call open")
    self.refused("start", [], 400, "must be a JSON object")

  def test_uploads(self):
    self.refused("upload", b"no picture", 400, "the content is not a picture Pillow can read")
    self.refused("upload", PICTURE.read_bytes()[:300], 400, "truncated")
    connection = client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.putrequest("POST", "/upload")
    for header in (("Content-Type", "application/octet-stream"), ("Content-Length", "1000001")):
      connection.putheader(*header)
    connection.endheaders()  # refused before anything is sent
    answer = connection.getresponse()
    self.assertEqual(answer.status, 413)
    self.assertEqual(json.loads(answer.read())["error"], "the file has 1,000,001 bytes, at most 1,000,000 are taken")
    connection.close()

  def test_other_sites_are_kept_out(self):
    self.refused("start", {}, 415, "must be application/json", **{"Content-Type": "text/plain"})
    self.refused("start", {}, 403, "this is not evil.example", Host=f"evil.example:{port}")

  def test_an_address_that_cannot_be_had(self):
    with mock.patch.object(explore.registry, "describe") as describe:
      for settings, message in (
        (explore.Settings(port=port), f"^port: {port} is in use on 127.0.0.1; give another"),
        (explore.Settings(host="192.0.2.1"), "^host: cannot listen on '192.0.2.1'"),
        (explore.Settings(port=70000), "^port: got 70000, must be 0 to 65535"),
        (explore.Settings(image=__file__), "explore_test.py is not a picture"),
      ):
        with self.assertRaisesRegex(ValueError, message):
          explore.make_server(settings)
    describe.assert_not_called()

  def test_a_failure_does_not_end_the_server(self):
    def fail(**_):
      raise RuntimeError("broken")

    with mock.patch.object(server.traceback, "print_exc"):
      self.assertEqual(server._call(fail, b"{}", False), (500, {"error": "RuntimeError: broken"}))


@absltest.skipIf(browser.find() is None, "there is no Chromium")
class BrowserTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.directory = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    self.page = browser.Browser(f"http://127.0.0.1:{port}/")
    self.addCleanup(self.page.close)
    self.settled(1)

  def settled(self, times):
    """Waits until the page has finished its work so many times."""
    self.page.wait(f"document.body && document.body.dataset.done >= {times} && !document.body.className")

  def act(self, script):
    """Runs a script that gives the page work, and waits for the end of the work."""
    before = int(self.page.run("document.body.dataset.done"))
    self.page.run(script)
    self.settled(before + 1)

  def text(self, selector):
    return self.page.run(f"document.querySelector({json.dumps(selector)}).textContent")

  def test_upload_ask_and_move_sliders(self):
    page = self.page
    texts = tuple(map(self.text, ("#pruned p", "#unpruned p", "#counted")))
    self.assertEqual(texts, ("0", "0", "29 of 144 (20 %)"))

    # A head that looks elsewhere, by the button and by the keyboard.
    self.act("document.querySelectorAll('.head button')[5].click()")
    self.assertEqual((self.text("#pruned p"), page.run("$('pruned').className")), ("5", "other"))
    self.act("$('uniform').click()")
    self.assertEqual((self.text("#pruned p"), page.run("$('pruned').className")), ("0", "same"))
    compiled = len(_compiled)
    for selector, key in (("#count", "ArrowRight"), (".head:nth-child(3) input", "ArrowLeft")):
      page.run(f"document.querySelector({json.dumps(selector)}).focus()")
      for _ in range(25):
        page.send("Input.dispatchKeyEvent", type="rawKeyDown", key=key, windowsVirtualKeyCode=39 if "R" in key else 37)
        page.send("Input.dispatchKeyEvent", type="keyUp", key=key)
      page.wait("!document.body.className")
    self.assertEqual(self.text("#counted"), "54 of 144 (38 %)")
    self.assertEqual(self.text(".head:nth-child(3) .share"), "9.7 %")
    saved = page.run("[...$('saved').rows].map(row => [...row.cells].map(cell => cell.textContent))")
    self.assertEqual(
      saved[1:3], [["visual tokens", "144", "54", "63 %"], ["tokens in prompt and cache", "159", "69", "57 %"]]
    )
    self.assertGreater(float(saved[3][2]), 0)
    self.assertLen(_compiled, compiled)

    # Stages in the decoder, and none again.
    stages = lambda text: self.act(f"$('stages').value = {text!r}; $('stages').onchange()")
    stages(STAGES)
    kept = lambda row: page.run(f"$('saved').rows[{row}].cells[2].textContent")
    self.assertEqual((kept(1), kept(2)), ("54, then 29 from layer 1 on, then 8 from layer 2 on", "39.8"))
    self.assertIn("removed before layer 2", self.text("#maps figcaption"))
    stages("decoder@4:0.1")
    self.assertIn("stages: layer of decoder@4:0.1: got 4", self.text("#status"))
    stages("")
    self.assertEqual(kept(1), "54")

    # Saved weights are what the commands take.
    page.run("$('save').click()")
    file = page.downloads / "head_importance.json"
    for _ in range(200):
      if file.exists():
        break
      time.sleep(0.02)
    weights = importance.load(file, 8)
    np.testing.assert_allclose(weights[2] / weights[0], 0.75, atol=1e-6)
    self.act("$('uniform').click()")
    page.give_files("#load", file)
    page.wait("document.querySelector('.head:nth-child(3) .share').textContent === '9.7 %' && !document.body.className")

    # A picture of one's own.
    upload = self.directory / "own.png"
    Image.fromarray(np.asarray(Image.open(PICTURE).convert("RGB"))[:, ::-1].copy()).save(upload)
    before = page.run("document.body.dataset.done")
    page.give_files("#file", upload)
    page.wait(f"document.body.dataset.done > {before} && !document.body.className")
    self.assertEqual(page.run("document.querySelectorAll('#rounds tr').length"), 2)
    page.run("$('question').value = 'How many digits are red?'")
    self.act("document.querySelector('#form button').click()")
    self.assertEqual(page.run("document.querySelectorAll('#rounds tr').length"), 3)
    self.assertNotEmpty(self.text("#pruned p"))

    # What is no picture is reported, and the page goes on.
    (self.directory / "text.png").write_text("no picture")
    page.give_files("#file", self.directory / "text.png")
    page.wait("$('status').className === 'error'")
    formats = ", ".join(pictures.FORMATS)
    self.assertEqual(self.text("#status"), f"the content is not a picture Pillow can read as {formats}")
    self.act("$('example').click()")
    self.assertEqual(self.text("#unpruned p"), self.text("#rounds tr:last-child td:last-child"))

    picture = Image.open(io.BytesIO(page.screenshot()))
    self.assertGreater(len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)), 500)
    self.assertEmpty(page.errors)
    if "SCREENSHOT" in os.environ:
      picture.save(os.environ["SCREENSHOT"])


if __name__ == "__main__":
  absltest.main()
