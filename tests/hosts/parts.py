"""A part to play: an agent that knows the skill and nothing else, and does what relay's own lines tell it."""

from __future__ import annotations

import re


def calls_of(turns):
    return [turn for turn in turns if turn.kind == "call"]


class Agent:
    """Begins each turn with `next` and then follows what relay prints.

    `texts` are what it sends, in order: kind, text, flags of `send`, a command to run before. It writes each text
    with its host's own file tool. What relay says is not its move ends the turn with words.
    """

    def __init__(self, scene, host, texts):
        self.relay, self.project, self.host, self.texts = (
            scene.relays[host],
            scene.project,
            host,
            texts,
        )

    def __call__(self, turns):
        # The hosts put words of their own behind a result; only those of relay's hooks begin something.
        last = next(
            turn
            for turn in reversed(turns)
            if turn.kind in ("result", "user") or "[relay-action]" in turn.text
        )
        if last.kind != "result":
            named = re.findall(r"(/\S+/bin/relay) next", last.text)
            return f"{named[-1] if named else self.relay} next"
        before = calls_of(turns)[-1]
        if before.name in ("Write", "write", "apply_patch"):
            return self._send(turns)
        if "run_in_background" in before.text:
            return {"say": "I wait."}
        if "# before the text" in before.text:
            return self._write(self.texts[self._sent(turns)][1], self._sent(turns))
        return self._follow(last.text, self._sent(turns))

    def _sent(self, turns):
        return sum(" send --kind" in call.text for call in calls_of(turns))

    def _follow(self, shown, sent):
        """What relay's output asks for."""
        action = (re.findall(r"^action: (\w+)", shown, re.MULTILINE) or [""])[-1]
        command = (re.findall(r"^next: (.*)$", shown, re.MULTILINE) or [""])[-1]
        if action == "bootstrap":
            return command
        if (
            action in ("reply", "resume", "start") or " send --kind plan" in command
        ) and sent < len(self.texts):
            command = self.texts[sent][3:]
            return (
                f"{command[0]} # before the text"
                if command
                else self._write(self.texts[sent][1], sent)
            )
        if " --wait" in command:
            return {"sh": command, "run_in_background": True} if self.host == "claude" else command
        return {"say": "My turn is over."}

    def _file(self, sent):
        return f".shared/_relay/{self.host}-{sent + 1}.md"

    def _sent_as(self, sent):
        return f"{self.project}/{self._file(sent)}"

    def _write(self, text, sent):
        if self.host == "claude":
            return {
                "tool": "Write",
                "input": {"file_path": f"{self.project}/{self._file(sent)}", "content": text},
            }
        if self.host == "opencode":
            path = f"{self.project}/{self._file(sent)}"
            return {"tool": "write", "input": {"filePath": path, "content": text}}
        lines = "".join(f"+{line}\n" for line in text.rstrip("\n").split("\n"))
        return {"patch": f"*** Begin Patch\n*** Add File: {self._file(sent)}\n{lines}*** End Patch"}

    def _send(self, turns):
        """The `send` for what was written; as an answer to what the last `next` handed over."""
        sent = self._sent(turns)
        kind, flags = self.texts[sent][0], self.texts[sent][2:3]
        handed = [
            turn.text
            for turn in turns
            if turn.kind == "result" and "\naction: " in f"\n{turn.text}"
        ]
        number = re.findall(r"--reply-to (\d+)", handed[-1]) if handed else []
        reply = ["--reply-to", number[-1]] if number else []
        return " ".join(
            [
                self.relay,
                "send --kind",
                kind,
                *reply,
                "--file",
                self._sent_as(sent),
                *flags,
            ]
        )


class AsSkillSays(Agent):
    """Writes each text into its own scratch file, and types it as SKILL.md has it."""

    def _file(self, sent):
        return f".shared/_relay/{self.host}.md"

    def _sent_as(self, sent):
        return self._file(sent)
