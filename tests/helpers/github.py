"""A stand-in for the part of GitHub's API that takes a review; it refuses what GitHub refuses."""

from __future__ import annotations

import http.server
import json
import re
import socketserver
import subprocess
import threading

REVIEWS = "/repos/{owner}/{repo}/pulls/{pull_number}/reviews"


def shown_lines(repository, base):
    """The right side of the diff of a pull request: by path, the sets of lines, one a hunk."""
    words = ("git", "-c", "core.quotePath=false", "diff", "-M", "--no-color", f"{base}...HEAD")
    shown, path, line = {}, "", 0
    diff = subprocess.run(words, cwd=repository, capture_output=True, check=True).stdout
    for row in diff.decode("utf-8", "replace").split("\n"):
        hunk = re.match(r"@@ -\S+ \+(\d+)", row)
        if row.startswith("+++ "):
            name = row[4:].rstrip("\t")
            quoted = name.startswith('"')
            path = (json.loads(name) if quoted else name).removeprefix("b/")
        elif hunk:
            line = int(hunk[1])
            shown.setdefault(path, []).append(set())
        elif row[:1] in ("+", " ") and row and path in shown:
            shown[path][-1].add(line)
            line += 1
    return shown


def problems(payload, repository, base):
    """Why GitHub would refuse this review; empty where it takes it."""
    words = ("git", "rev-parse", "HEAD")
    head = subprocess.run(words, cwd=repository, capture_output=True, text=True, check=True)
    found = [] if payload["commit_id"] == head.stdout.strip() else ["commit_id"]
    if payload["event"] != "COMMENT" or not payload["body"].strip():
        found.append("event or body")
    found += ["body is too long"] if len(payload["body"]) > 65_536 else []
    shown = shown_lines(repository, base)
    for comment in payload["comments"]:
        last, first = comment["line"], comment.get("start_line", comment["line"])
        sides = {comment["side"], comment.get("start_side", "RIGHT")}
        inside = any({first, last} <= lines for lines in shown.get(comment["path"], ()))
        ordered = first < last if "start_line" in comment else True
        if not inside or not ordered or sides != {"RIGHT"} or not comment["body"].strip():
            found.append(f"{comment['path']}:{first}-{last}")
    return found


def misfits(value, schema, where="$"):
    """Where a value does not fit the part of JSON Schema that the description uses."""
    kinds = {"object": dict, "array": list, "string": str, "integer": int}
    if not isinstance(value, kinds[schema["type"]]):
        return [f"{where} is no {schema['type']}"]
    found = [f"{where} is {value}"] if value not in schema.get("enum", [value]) else []
    if schema["type"] == "object":
        found += [
            f"{where}.{key} is missing" for key in schema.get("required", ()) if key not in value
        ]
        for key, inner in value.items():
            known = schema["properties"].get(key)
            found += misfits(inner, known, f"{where}.{key}") if known else [f"{where}.{key}"]
    if schema["type"] == "array":
        for at, inner in enumerate(value):
            found += misfits(inner, schema["items"], f"{where}[{at}]")
    return found


class GitHub:
    """Listens on a Unix socket, as `gh config set http_unix_socket` wants it."""

    def __init__(self, socket, description, repository, base):
        post = description["paths"][REVIEWS]["post"]
        schema = post["requestBody"]["content"]["application/json"]["schema"]
        self.taken, self.refused = [], []
        stand_in = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def address_string(self):
                return "socket"

            def log_message(self, *_):
                pass

            def do_POST(self):
                content = b""
                if "chunked" in self.headers.get("Transfer-Encoding", ""):
                    while size := int(self.rfile.readline(), 16):
                        content += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                else:
                    content = self.rfile.read(int(self.headers["Content-Length"]))
                payload = json.loads(content)
                why = misfits(payload, schema) or problems(payload, repository, base)
                if not re.fullmatch(r"/repos/[\w-]+/[\w-]+/pulls/\d+/reviews", self.path):
                    why = [self.path]
                (stand_in.refused if why else stand_in.taken).append(why or payload)
                self.send_response(422 if why else 200)
                answer = {"message": "Unprocessable Entity", "errors": why} if why else {"id": 1}
                self.send_header("Content-Type", "application/json; charset=utf-8")
                self.end_headers()
                self.wfile.write(json.dumps(answer).encode())

        class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
            daemon_threads = True

        self.server = Server(str(socket), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()
