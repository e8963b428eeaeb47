"""A real S3 server as a process of its own (moto's), and a proxy before it that does to requests what networks do.

What moto does not prove: that signatures, policies and checksums are judged as AWS judges them, how many requests a
second a bucket bears, and encryption, under which ETags are no digests. It enforces If-None-Match, If-Match and the
least size of a part, and it makes ETags of plain uploads and of those in parts as AWS does.
"""

import contextlib
import http.client
import json
import re
import sys
import threading
import traceback
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import s3fs

from manifests import files, patience
from tests.servers import BIN, clean_environment, free_port, running, wait_for

BUCKET = "absentia-tests"
SECRET = "not-to-be-written-anywhere"  # noqa: S105  (moto takes any)

Damage = Callable[[bytes], bytes]


@dataclass(slots=True, kw_only=True)
class Fault:
    """What happens to requests whose method and path (with its query) match, so many times."""

    request: str  # a pattern, as "PUT .*/shards/"
    times: int = 1 << 30
    status: int = 0  # answered so, without asking the server
    half_body: bool = False  # half of the answer's body comes, then the connection ends
    body: Damage | None = None  # of the answer
    sent: Damage | None = None  # of the request
    waits: threading.Event | None = None  # the request waits for this
    met: threading.Event = field(default_factory=threading.Event)
    seen: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class S3:
    """The server, the proxy that clients talk to, and what it was asked to spoil."""

    server_port: int
    proxy_port: int
    faults: list[Fault] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """How a client finds the bucket, and what it may; the client's own retries are off, so that ours are seen."""
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.proxy_port}",
            "AWS_ACCESS_KEY_ID": "somebody",
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    @contextlib.contextmanager
    def spoiled(self, *faults: Fault) -> Iterator[None]:
        """While this lasts, the proxy does as the faults say."""
        self.faults = list(faults)
        try:
            yield
        finally:
            for fault in self.faults:
                if fault.waits is not None:
                    fault.waits.set()
            self.faults = []

    def fault_of(self, request: str) -> Fault | None:
        """The fault that this request meets."""
        with self.lock:
            for fault in self.faults:
                if len(fault.seen) < fault.times and re.match(fault.request, request):
                    fault.seen.append(request)
                    fault.met.set()
                    return fault
        return None

    def direct(self) -> s3fs.S3FileSystem:
        """A client that passes the proxy by."""
        place = f"http://127.0.0.1:{self.server_port}"
        return s3fs.S3FileSystem(endpoint_url=place, key="a", secret="b", use_listings_cache=False)  # noqa: S106

    def objects(self, prefix: str) -> dict[str, bytes]:
        """Everything that is visible below a prefix of the bucket, by its name below it."""
        client = self.direct()
        top = f"{BUCKET}/{prefix}/"
        return {name.removeprefix(top): client.cat_file(name) for name in client.find(top)}

    def unfinished(self) -> list[str]:
        """Keys of uploads in parts that were begun and neither completed nor ended."""
        found = self.direct().call_s3("list_multipart_uploads", Bucket=BUCKET)
        return [upload["Key"] for upload in found.get("Uploads", ())]

    def upload(self, folder: Path, prefix: str) -> str:
        """Copy every file below `folder` into the bucket; its URL."""
        client = self.direct()
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                client.pipe_file(f"{BUCKET}/{prefix}/{path.relative_to(folder).as_posix()}", path.read_bytes())
        return f"s3://{BUCKET}/{prefix}"


def handler_of(s3: S3) -> type[BaseHTTPRequestHandler]:
    """What serves the proxy's requests."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def serve(self) -> None:
            sent = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = s3.fault_of(f"{self.command} {self.path}") or Fault(request="")
            if fault.waits is not None:
                fault.waits.wait(60)
            if fault.status:
                self.refuse(fault.status)
                return
            status, headers, body = self.forward(fault.sent(sent) if fault.sent else sent)
            body = fault.body(body) if fault.body else body
            self.send_response_only(status)
            for name, value in headers:
                if name.lower() not in {"content-length", "connection", "transfer-encoding"}:
                    self.send_header(name, value)
            length = dict(headers).get("Content-Length", "0") if self.command == "HEAD" else str(len(body))
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(body[: len(body) // 2] if fault.half_body else body)
            self.close_connection = fault.half_body

        def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
            server = http.client.HTTPConnection("127.0.0.1", s3.server_port, timeout=60)
            with contextlib.closing(server):
                server.request(self.command, self.path, body, dict(self.headers))
                answer = server.getresponse()
                return answer.status, answer.getheaders(), answer.read()

        def refuse(self, status: int) -> None:
            code = {403: "AccessDenied", 503: "ServiceUnavailable"}[status]
            body = f"<Error><Code>{code}</Code><Message>as the test asks</Message></Error>".encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(b"" if self.command == "HEAD" else body)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = serve  # noqa: N815  (http.server's names)

        def log_message(self, *_: object) -> None: ...

    return Handler


class Proxy(ThreadingHTTPServer):
    """Ends with the test, whatever its connections are at."""

    daemon_threads = True

    def handle_error(self, *_: object) -> None:
        """Clients that are killed leave broken connections."""
        if not isinstance(sys.exception(), OSError):
            traceback.print_exc()


@contextlib.contextmanager
def s3_server(folder: Path) -> Iterator[S3]:
    """A server with one empty bucket, and the proxy."""
    port = free_port()
    log = folder / "moto.log"
    command = [str(BIN / "moto_server"), "-H", "127.0.0.1", "-p", str(port)]
    with running(command, clean_environment(folder / "home"), log, cwd=folder):
        wait_for("an S3 server", lambda: _answers(port), log)
        s3 = S3(server_port=port, proxy_port=0)
        with Proxy(("127.0.0.1", 0), handler_of(s3)) as proxy:
            s3.proxy_port = proxy.server_address[1]
            serving = threading.Thread(target=proxy.serve_forever, daemon=True)
            serving.start()
            s3.direct().call_s3("create_bucket", Bucket=BUCKET)
            yield s3
            proxy.shutdown()
            serving.join()


def _answers(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/moto-api/data.json", timeout=5) as answer:
            return isinstance(json.load(answer), dict)
    except OSError:
        return False


def read_without_patience(uri: str) -> bytes:
    """What is there, for a worker process that should not wait."""
    patience.DELAYS_S = ()
    return files.read_bytes(uri)
