"""A Hub on the loopback, as far as huggingface_hub's own client talks to it: repositories, commits, large files.

Keeps commits in memory and large files on disk, streams both ways, and can break a connection in the middle.
"""

import base64
import hashlib
import json
import re
import shutil
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

TOKEN = "hf_writer"
_CHUNK = 2**20
_LARGE = (".safetensors", ".bin")


@dataclass(frozen=True)
class Entry:
    """One file of a commit: its bytes, or the hash and size of a large file."""

    content: bytes | None
    oid: str
    size: int


@dataclass
class Repository:
    private: bool = False
    branches: dict[str, str] = field(default_factory=dict)
    commits: dict[str, dict[str, Entry]] = field(default_factory=dict)
    history: list[str] = field(default_factory=list)

    def commit(self, branch: str, files: dict[str, Entry]) -> str:
        sha = hashlib.sha1(f"{len(self.commits)} {sorted(files)}".encode()).hexdigest()
        self.commits[sha], self.branches[branch] = files, sha
        self.history.append(sha)
        return sha

    def files(self, revision: str = "main") -> dict[str, Entry]:
        return self.commits[self.branches.get(revision, revision)]


class StubHub:
    """A server in a thread, for as long as the `with` block.

    Attributes:
        url: what HF_ENDPOINT has to be.
        requests: (method, path, token) of every request, in order.
        sent: large files that arrived completely, by hash, in order.
        break_after: bytes of a large file after which its connection is cut, both ways; None for never.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        self.repositories: dict[str, Repository] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.sent: list[str] = []
        self.break_after: int | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        # another host, as the real one: the client follows redirects within a host when it asks about a file
        self.storage_url = f"http://localhost:{self._server.server_port}"

    def __enter__(self) -> "StubHub":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def file(self, repo: str, path: str, revision: str = "main") -> bytes:
        """The bytes of a published file."""
        entry = self.repositories[repo].files(revision)[path]
        return (self.folder / entry.oid).read_bytes() if entry.content is None else entry.content

    def add(self, repo: str, files: dict[str, bytes], branch: str = "main", private: bool = False) -> str:
        """A commit that nobody sent through the client."""
        repository = self.repositories.setdefault(repo, Repository(private))
        before = repository.files(branch) if branch in repository.branches else {}
        return repository.commit(branch, {**before, **{name: small(content) for name, content in files.items()}})


def small(content: bytes) -> Entry:
    return Entry(content, hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest(), len(content))


class _Handler(BaseHTTPRequestHandler):
    hub: StubHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        """No lines on stderr."""

    def _serve(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path, self._token()))
        for method, pattern, name in _ROUTES:
            match = re.fullmatch(pattern, path)
            if self.command in method and match:
                return getattr(self, name)(**match.groupdict())
        self._read_json()
        return self._answer(404, {"error": f"the stub has no {self.command} {path}"})

    do_GET = do_POST = do_PUT = do_HEAD = _serve

    def _token(self) -> str | None:
        return (self.headers.get("authorization") or "").removeprefix("Bearer ") or None

    # ---- the API ------------------------------------------------------------------------------------------------

    def create(self) -> None:
        wish = self._read_json()
        name = "/".join(filter(None, (wish.get("organization"), wish["name"])))
        if self._token() != TOKEN:
            return self._answer(401, {"error": "Invalid username or password."})
        if name in self.hub.repositories:
            return self._answer(409, {"error": "exists", "url": f"{self.hub.url}/{name}"})
        repository = self.hub.repositories[name] = Repository(wish.get("visibility") == "private")
        repository.commit("main", {".gitattributes": small(b"*.safetensors filter=lfs\n")})
        return self._answer(200, {"url": f"{self.hub.url}/{name}"})

    def validate_yaml(self) -> None:
        self._read_json()
        self._answer(200, {"errors": [], "warnings": []})

    def branch(self, repo: str, revision: str) -> None:
        self._read_json()
        repository = self._repository(repo, writes=True)
        if repository and revision in repository.branches:
            self._answer(409, {"error": "exists"})
        elif repository:
            repository.branches[revision] = repository.branches["main"]
            self._answer(200, {})

    def info(self, repo: str, revision: str | None = None) -> None:
        found = self._commit(repo, revision or "main")
        if found:
            sha, files = found
            private = self.hub.repositories[repo].private
            siblings = [{"rfilename": path} for path in files]
            self._answer(200, {"id": repo, "sha": sha, "private": private, "siblings": siblings, "tags": []})

    def tree(self, repo: str, revision: str) -> None:
        found = self._commit(repo, revision)
        if found:
            files = [{"type": "file", "path": path, "oid": e.oid, "size": e.size} for path, e in found[1].items()]
            self._answer(200, files)

    def preupload(self, repo: str, revision: str) -> None:
        wanted = self._read_json()["files"]
        repository = self._repository(repo, writes=True)
        if repository:
            there = repository.files(revision)
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(_LARGE) else "regular",
                    "shouldIgnore": False,
                    "oid": there[file["path"]].oid if file["path"] in there else None,
                }
                for file in wanted
            ]
            self._answer(200, {"files": modes})

    def batch(self, repo: str) -> None:
        objects = self._read_json()["objects"]
        if self._repository(repo, writes=True):
            answers = []
            for wanted in objects:
                upload = {"upload": {"href": f"{self.hub.url}/large/{wanted['oid']}", "header": {}}}
                is_here = (self.hub.folder / wanted["oid"]).exists()
                answers.append({**wanted, **({} if is_here else {"actions": upload})})
            self._answer(200, {"transfer": "basic", "objects": answers})

    def upload(self, oid: str) -> None:
        left, partial, digest = int(self.headers["content-length"]), self.hub.folder / f"{oid}.part", hashlib.sha256()
        with open(partial, "wb") as file:
            while left:
                if self.hub.break_after is not None and file.tell() >= self.hub.break_after:
                    return self._cut()
                chunk = self.rfile.read(min(left, _CHUNK))
                digest.update(chunk)
                file.seek(len(chunk), 1) if not any(chunk) else file.write(chunk)  # zeros take no room on disk
                left -= len(chunk)
            file.truncate(file.tell())
        assert digest.hexdigest() == oid
        partial.rename(self.hub.folder / oid)
        self.hub.sent.append(oid)
        return self._answer(200, {})

    def commit(self, repo: str, revision: str) -> None:
        lines = [json.loads(line) for line in self._read().splitlines()]
        repository = self._repository(repo, writes=True)
        if not repository:
            return None
        files = dict(repository.files(revision))
        for line in lines:
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = small(base64.b64decode(value["content"]))
            elif line["key"] == "lfsFile":
                assert (self.hub.folder / value["oid"]).exists()
                files[value["path"]] = Entry(None, value["oid"], value["size"])
            elif line["key"] == "deletedFile":
                del files[value["path"]]
        sha = repository.commit(revision, files)
        return self._answer(200, {"commitUrl": f"{self.hub.url}/{repo}/commit/{sha}", "commitOid": sha})

    # ---- files --------------------------------------------------------------------------------------------------

    def resolve(self, repo: str, revision: str, path: str) -> None:
        found = self._commit(repo, revision)
        if not found:
            return None
        sha, files = found
        if path not in files:
            return self._answer(404, {}, {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": sha})
        entry = files[path]
        headers = {"X-Repo-Commit": sha, "ETag": f'"{entry.oid}"'}
        if entry.content is not None:
            return self._answer(200, entry.content, headers)
        there = {"Location": f"{self.hub.storage_url}/large/{entry.oid}", "X-Linked-Etag": f'"{entry.oid}"'}
        return self._answer(302, b"", {**headers, **there, "X-Linked-Size": str(entry.size)})

    def download(self, oid: str) -> None:
        size = (self.hub.folder / oid).stat().st_size
        start = int((self.headers.get("range") or "bytes=0-").removeprefix("bytes=").partition("-")[0])
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(size - start))
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        self.end_headers()
        if self.command == "HEAD":
            return None
        with open(self.hub.folder / oid, "rb") as file:
            file.seek(start)
            if self.hub.break_after is not None:
                self.wfile.write(file.read(self.hub.break_after))
                return self._cut()
            return shutil.copyfileobj(file, self.wfile, _CHUNK)

    # ---- who may, and the wire ----------------------------------------------------------------------------------

    def _repository(self, repo: str, writes: bool = False) -> Repository | None:
        """The repository, or None after an answer that refuses."""
        repository = self.hub.repositories.get(repo)
        is_open = repository is not None and not repository.private and not writes
        if repository is not None and (is_open or self._token() == TOKEN):
            return repository
        self._answer(401 if self._token() != TOKEN else 404, {}, {"X-Error-Code": "RepoNotFound"})
        return None

    def _commit(self, repo: str, revision: str) -> tuple[str, dict[str, Entry]] | None:
        repository = self._repository(repo)
        if repository is None:
            return None
        sha = repository.branches.get(revision, revision)
        if sha in repository.commits:
            return sha, repository.commits[sha]
        self._answer(404, {}, {"X-Error-Code": "RevisionNotFound"})
        return None

    def _read(self) -> bytes:
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _read_json(self) -> Any:
        return json.loads(self._read() or b"{}")

    def _answer(self, status: int, body: Any, headers: dict[str, str] | None = None) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.close()


_REPO = "(?P<repo>[^/]+/[^/]+)"
_ROUTES = (
    (("POST",), "/api/repos/create", "create"),
    (("POST",), "/api/validate-yaml", "validate_yaml"),
    (("POST",), f"/api/models/{_REPO}/branch/(?P<revision>.+)", "branch"),
    (("GET",), f"/api/models/{_REPO}", "info"),
    (("GET",), f"/api/models/{_REPO}/revision/(?P<revision>.+)", "info"),
    (("GET",), f"/api/models/{_REPO}/tree/(?P<revision>[^/]+)", "tree"),
    (("POST",), f"/api/models/{_REPO}/preupload/(?P<revision>.+)", "preupload"),
    (("POST",), f"/api/models/{_REPO}/commit/(?P<revision>.+)", "commit"),
    (("POST",), f"/{_REPO}.git/info/lfs/objects/batch", "batch"),
    (("PUT",), "/large/(?P<oid>[0-9a-f]+)", "upload"),
    (("GET", "HEAD"), "/large/(?P<oid>[0-9a-f]+)", "download"),
    (("GET", "HEAD"), f"/{_REPO}/resolve/(?P<revision>[^/]+)/(?P<path>.+)", "resolve"),
)
