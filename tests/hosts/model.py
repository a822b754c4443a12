"""A model that plays a part: it speaks enough of the Anthropic Messages and the OpenAI Responses API on loopback
for the real clients to talk to it, and lets a function of the conversation decide what to do next.

A part is a function from the turns of a conversation to one step:

    "command"                        the client's shell tool; {"sh": "command", ...} with more of its arguments
    {"say": "text"}                  plain text, which ends the turn
    {"tool": "Edit", "input": {}}    any other tool by name
    {"patch": "*** Begin Patch..."}  Codex's apply_patch
    [step, step]                     several calls in one message

A list of steps is a part too: one step for each message of the assistant so far. Side requests of the clients
(titles and the like), which offer no shell, are answered with a word.
"""

from __future__ import annotations

import json
import re
import threading
import time
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHELLS = {"exec_command", "shell_command", "shell"}
DONE = {"say": "nothing more to do"}


class Turn:
    """One piece of a conversation: `kind` is said, call, result, user or system; `text` what it holds."""

    def __init__(self, kind, text, name=""):
        self.kind, self.text, self.name = kind, text, name

    def __repr__(self):
        return f"{self.kind} {self.name} {self.text[:200]!r}"


class Request:
    """One request of a client: when, from which host, its turns, all texts it was sent, the step it was given."""

    def __init__(self, host, turns, body, step, main=True):
        self.at, self.host, self.turns, self.body, self.step, self.main = (
            time.time(),
            host,
            turns,
            body,
            step,
            main,
        )

    @property
    def text(self):
        return "\n".join(turn.text for turn in self.turns)


def flat(content):
    """The text in whatever shape the two APIs wrap it."""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        return "\n".join(flat(part) for part in content)
    if isinstance(content, dict):
        return flat(
            content.get("text")
            or content.get("content")
            or content.get("output")
            or content.get("thinking")
            or ""
        )
    return ""


def claude_turns(body):
    for message in body.get("messages", []):
        content = message["content"]
        for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            if block["type"] == "tool_use":
                yield Turn("call", json.dumps(block["input"]), block["name"])
            elif block["type"] == "tool_result":
                yield Turn("result", flat(block.get("content")))
            elif block["type"] == "text":
                yield Turn(
                    {"assistant": "said"}.get(message["role"], message["role"]), block["text"]
                )


def codex_turns(body):
    for item in body.get("input") or []:
        kind = item.get("type", "message")
        if kind == "message":
            yield Turn(
                {"assistant": "said", "developer": "system"}.get(item["role"], item["role"]),
                flat(item["content"]),
            )
        elif kind in ("function_call", "custom_tool_call"):
            yield Turn("call", item.get("arguments") or item.get("input") or "", item["name"])
        elif kind.endswith("_output"):
            yield Turn("result", flat(item.get("output")))


def steps_taken(turns):
    """How many messages the assistant has sent: calls and words in a row are one."""
    mine = [turn.kind in ("call", "said") for turn in turns]
    return sum(now and not before for before, now in zip([False, *mine], mine))


class Model:
    """Both APIs on one port; `claude` and `codex` are parts, and may be exchanged while it runs."""

    def __init__(self, claude=(), codex=()):
        self.parts = {"claude": claude, "codex": codex, "opencode": ()}
        self.requests = []
        self._lock = threading.Lock()
        model = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_HEAD(self):
                self.answer(200, b"")

            def do_GET(self):
                self.answer(200, b'{"data": [], "models": []}')

            def do_POST(self):
                body = json.loads(
                    self.rfile.read(int(self.headers.get("content-length") or 0)) or b"{}"
                )
                path = self.path.split("?")[0]
                try:
                    if path.endswith("/count_tokens"):
                        self.answer(200, b'{"input_tokens": 100}')
                    elif path.endswith("/messages"):
                        self.stream(model.anthropic(body))
                    elif path.endswith("/responses"):
                        self.stream(model.openai(body))
                    else:
                        self.answer(404, b"{}")
                except (BrokenPipeError, ConnectionResetError):
                    return

            def answer(self, code, content):
                self.send_response(code)
                self.send_header("content-type", "application/json")
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def stream(self, events):
                self.send_response(200)
                self.send_header("content-type", "text/event-stream")
                self.send_header("connection", "close")
                self.end_headers()
                for event in events:
                    self.wfile.write(
                        f"event: {event['type']}\ndata: {json.dumps(event)}\n\n".encode()
                    )
                self.wfile.flush()
                self.close_connection = True

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self):
        self._server.shutdown()
        self._server.server_close()

    def of(self, host):
        """The main requests of a host, in order."""
        return [request for request in self.requests if request.host == host and request.main]

    def ended_turns(self, host):
        """How often a host's turn was ended by words."""
        return sum(
            "say" in request.step for request in self.of(host) if isinstance(request.step, dict)
        )

    def _step(self, host, turns, body, main):
        part = self.parts[host]
        step = (
            {"say": "mock"}
            if not main
            else part(turns)
            if callable(part)
            else (list(part) + [DONE] * 500)[steps_taken(turns)]
        )
        step = {"sh": step} if isinstance(step, str) else step
        with self._lock:
            self.requests.append(Request(host, turns, body, step, main))
        time.sleep(step.get("delay", 0) if isinstance(step, dict) else 0)
        return [
            {"sh": part} if isinstance(part, str) else part
            for part in (step if isinstance(step, list) else [step])
        ]

    def anthropic(self, body):
        names = {tool.get("name") for tool in body.get("tools") or []}
        host = "opencode" if "bash" in names else "claude"  # OpenCode speaks this API, too.
        turns = list(claude_turns(body))
        main = bool(names & {"Bash", "bash"})
        blocks = [self._block(step, host) for step in self._step(host, turns, body, main)]
        usage = {
            "input_tokens": 1000,
            "output_tokens": 10,
            "cache_creation_input_tokens": 0,
            "cache_read_input_tokens": 0,
        }
        message = {"id": f"msg_{uuid.uuid4().hex[:20]}", "type": "message", "role": "assistant", "model": body.get("model"),
                   "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}  # fmt: skip
        yield {"type": "message_start", "message": message}
        for n, block in enumerate(blocks):
            if block["type"] == "text":
                start, delta = (
                    {"type": "text", "text": ""},
                    {"type": "text_delta", "text": block["text"]},
                )
            else:
                start, delta = (
                    {**block, "input": {}},
                    {"type": "input_json_delta", "partial_json": json.dumps(block["input"])},
                )
            yield {"type": "content_block_start", "index": n, "content_block": start}
            yield {"type": "content_block_delta", "index": n, "delta": delta}
            yield {"type": "content_block_stop", "index": n}
        stop = "tool_use" if any(block["type"] == "tool_use" for block in blocks) else "end_turn"
        yield {
            "type": "message_delta",
            "delta": {"stop_reason": stop, "stop_sequence": None},
            "usage": {"output_tokens": 10},
        }
        yield {"type": "message_stop"}

    @staticmethod
    def _block(step, host):
        if "say" in step:
            return {"type": "text", "text": step["say"]}
        shell = "bash" if host == "opencode" else "Bash"
        name, given = step.get("tool", shell), step.get("input")
        if "sh" in step:
            more = {key: value for key, value in step.items() if key not in ("sh", "delay")}
            given = {"command": step["sh"], "description": "a step", **more}
        return {
            "type": "tool_use",
            "id": f"toolu_{uuid.uuid4().hex[:20]}",
            "name": name,
            "input": given,
        }

    def openai(self, body):
        tools = {tool.get("name") or tool.get("type"): tool for tool in body.get("tools") or []}
        main = bool(set(tools) & SHELLS)
        items = [
            self._item(step, tools, body)
            for step in self._step("codex", list(codex_turns(body)), body, main)
        ]
        answer = {"id": f"resp_{uuid.uuid4().hex}"}
        yield {"type": "response.created", "response": answer}
        for n, item in enumerate(items):
            yield {"type": "response.output_item.added", "output_index": n, "item": item}
            yield {"type": "response.output_item.done", "output_index": n, "item": item}
        usage = {"input_tokens": 1000, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 10,
                 "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 1010}  # fmt: skip
        yield {
            "type": "response.completed",
            "response": {**answer, "output": items, "usage": usage},
        }

    @staticmethod
    def _item(step, tools, body):
        call = f"call_{uuid.uuid4().hex[:16]}"
        if "say" in step:
            return {
                "type": "message",
                "role": "assistant",
                "id": f"msg_{call}",
                "content": [{"type": "output_text", "text": step["say"]}],
            }
        if "patch" in step and tools.get("apply_patch", {}).get("type") == "custom":
            return {
                "type": "custom_tool_call",
                "id": f"ct_{call}",
                "call_id": call,
                "name": "apply_patch",
                "input": step["patch"],
            }
        if "patch" in step:
            step = {"tool": "apply_patch", "input": {"input": step["patch"]}}
        name, given = step.get("tool"), step.get("input")
        if "sh" in step:
            name = next(
                tool for tool in ("exec_command", "shell_command", "shell") if tool in tools
            )
            key, value = ("cmd", step["sh"]) if name == "exec_command" else ("command", step["sh"])
            given = {
                key: value,
                **{key: value for key, value in step.items() if key not in ("sh", "delay")},
            }
        text = json.dumps(given)
        running = re.findall(r"session ID (\d+)", json.dumps(body.get("input")))
        if running:
            text = text.replace('"$SESSION"', running[-1])
        return {
            "type": "function_call",
            "id": f"fc_{call}",
            "call_id": call,
            "name": name,
            "arguments": text,
        }
