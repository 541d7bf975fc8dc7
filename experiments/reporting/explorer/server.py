"""A small web server: one page, and calls that take and return JSON."""

from __future__ import annotations

from collections.abc import Callable, Mapping
import errno
from http import server
import json
import socket
import sys
import traceback
from typing import Any

_JSON_LIMIT = 1_000_000  # bytes of a call that is no upload
_SECONDS = 60  # that a client may be silent
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


def make(
  host: str, port: int, page: str, calls: Mapping[str, Callable[..., Any]], upload: Callable[[bytes], Any], limit: int
) -> server.ThreadingHTTPServer:
  """A server that listens, and answers once `serve_forever` is called.

  Args:
    host: address to listen on.
    port: to listen on; 0: any that is free.
    page: HTML, for `/`.
    calls: by name; POST /NAME with a JSON object calls one with the object's entries as arguments. A ValueError is the
      client's error, and its message the answer.
    upload: POST /upload calls it with the body.
    limit: most bytes of an upload.

  Raises:
    ValueError: an address that cannot be had.
  """

  class Handler(server.BaseHTTPRequestHandler):
    """One connection."""

    protocol_version = "HTTP/1.1"
    timeout = _SECONDS

    def do_GET(self):
      """The page."""
      if self._is_foreign():
        self._send_json(403, {"error": f"this is not {self.headers.get('Host')}"})
      elif self.path == "/":
        self._send(200, page.encode(), "text/html; charset=utf-8")
      else:
        self._send_json(404, {"error": f"there is no {self.path}"})

    def do_POST(self):
      """A call."""
      name = self.path.removeprefix("/")
      kind, most = ("application/octet-stream", limit) if name == "upload" else ("application/json", _JSON_LIMIT)
      length = self.headers.get("Content-Length", "")
      problem = None
      # Pages of other sites can send only other types without being asked first.
      if self._is_foreign():
        problem = 403, f"this is not {self.headers.get('Host')}"
      elif self.headers.get("Content-Type") != kind:
        problem = 415, f"the content must be {kind}"
      elif not length.isdecimal():
        problem = 411, "the length of the content is needed"
      elif int(length) > most:
        problem = 413, f"the file has {int(length):,} bytes, at most {most:,} are taken"
      elif name != "upload" and name not in calls:
        problem = 404, f"there is no call {name}"
      if problem:
        self.close_connection = True  # the content is not read
        self._send_json(problem[0], {"error": problem[1]})
        return
      self._send_json(*_call(upload if name == "upload" else calls[name], self.rfile.read(int(length)), name == "upload"))

    def _is_foreign(self):
      """Whether a page of another site, whose name was made to mean this machine, is asking."""
      name = self.headers.get("Host", "").rpartition(":")[0].strip("[]")
      return host in _LOOPBACK and name not in _LOOPBACK

    def _send_json(self, status, content):
      self._send(status, json.dumps(content).encode(), "application/json")

    def _send(self, status, content, kind):
      self.send_response(status)
      self.send_header("Content-Type", kind)
      self.send_header("Content-Length", str(len(content)))
      self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'")
      self.send_header("Cache-Control", "no-store")
      self.end_headers()
      self.wfile.write(content)

    def log_message(self, format, *args):
      """Keeps quiet."""

  class Server(server.ThreadingHTTPServer):
    """Listens on IPv4 or IPv6, as the host says."""

    address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
    daemon_threads = True

  try:
    return Server((host, port), Handler)
  except OSError as error:
    if error.errno == errno.EADDRINUSE:
      raise ValueError(f"port: {port} is in use on {host}; give another, or 0 for any that is free") from error
    raise ValueError(f"host: cannot listen on {host!r}, port {port} ({error.strerror or error})") from error
  except OverflowError as error:
    raise ValueError(f"port: got {port}, must be 0 to 65535") from error


def _call(function, body: bytes, raw: bool) -> tuple[int, Any]:
  """Status and content of an answer."""
  try:
    if raw:
      return 200, function(body)
    arguments = json.loads(body)
    if not isinstance(arguments, dict):
      raise ValueError("the content must be a JSON object")
    return 200, function(**arguments)
  except (ValueError, TypeError) as error:
    return 400, {"error": str(error)}
  except Exception as error:  # the server goes on
    traceback.print_exc(file=sys.stderr)
    return 500, {"error": f"{type(error).__name__}: {error}"}
