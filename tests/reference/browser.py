"""A headless Chromium for tests, driven over its DevTools pipe; needs no package beside the browser."""

import base64
import json
import os
import pathlib
import shlex
import shutil
import subprocess
import tempfile
import time

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def find():
  """The browser's path, or None."""
  return next(filter(None, map(shutil.which, NAMES)), None)


class Browser:
  """One page in a browser of its own.

  Attributes:
    downloads: directory that downloads go to.
    errors: what the page's scripts failed with.
  """

  def __init__(self, url, size=(1400, 1000), seconds=120):
    """Opens a page, in which every wait may take so many seconds."""
    self._seconds, self._number, self.errors = seconds, 0, []
    self._holder = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
    self.downloads = pathlib.Path(self._holder.name) / "downloads"
    self.downloads.mkdir()
    (read, self._write), (self._read, write) = os.pipe(), os.pipe()

    command = [
      find(),
      "--headless=new",
      "--no-sandbox",
      "--disable-gpu",
      "--disable-dev-shm-usage",
      "--no-first-run",
      f"--user-data-dir={self._holder.name}/profile",
      f"--window-size={size[0]},{size[1]}",
      "--remote-debugging-pipe",  # commands come from 3, answers go to 4
    ]
    self._process = subprocess.Popen(
      ["bash", "-c", f"exec {shlex.join(command)} 3<&{read} 4>&{write}"],
      pass_fds=(read, write),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
    )
    os.close(read)
    os.close(write)
    self._buffer, self._session = b"", None
    self.send("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(self.downloads))
    target = self.send("Target.createTarget", url="about:blank")["targetId"]
    self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Runtime", "Page", "DOM"):
      self.send(f"{domain}.enable")
    self.send("Page.navigate", url=url)

  def send(self, method, **params):
    """The result of a DevTools command."""
    self._number += 1
    message = {"id": self._number, "method": method, "params": params}
    if self._session:
      message["sessionId"] = self._session
    os.write(self._write, json.dumps(message).encode() + b"\0")
    while True:
      while b"\0" not in self._buffer:
        received = os.read(self._read, 1 << 20)
        assert received, "the browser is gone"
        self._buffer += received
      line, _, self._buffer = self._buffer.partition(b"\0")
      answer = json.loads(line)
      if answer.get("method") == "Runtime.exceptionThrown":
        self.errors.append(answer["params"]["exceptionDetails"])
      if answer.get("id") == self._number:
        assert "error" not in answer, answer["error"]
        return answer["result"]

  def run(self, script):
    """The value of a JavaScript expression, of which promises are awaited."""
    found = self.send("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
    assert "exceptionDetails" not in found, found["exceptionDetails"]
    return found["result"].get("value")

  def wait(self, script):
    """Waits until an expression is true."""
    ends = time.monotonic() + self._seconds
    while not self.run(script):
      assert time.monotonic() < ends, f"waited in vain for {script}"
      time.sleep(0.02)

  def give_files(self, selector, *paths):
    """Chooses files in an <input type=file>."""
    root = self.send("DOM.getDocument")["root"]["nodeId"]
    node = self.send("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
    self.send("DOM.setFileInputFiles", nodeId=node, files=list(map(str, paths)))

  def screenshot(self):
    """PNG of the window."""
    return base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"])

  def close(self):
    """Ends the browser."""
    self._process.kill()
    self._process.wait()
    os.close(self._write)
    os.close(self._read)
    self._holder.cleanup()
