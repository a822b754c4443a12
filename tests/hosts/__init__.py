"""The real Claude Code and Codex, driven by a scripted model."""
