"""The command line: `rebus <verb>`. One file per verb in `verbs/`; nothing heavy is imported before a verb needs it."""

from rebus.cli.app import main

__all__ = ["main"]
