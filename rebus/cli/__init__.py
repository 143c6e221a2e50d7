"""The command line: `rebus <command>`. One file per command in `verbs/`; heavy imports happen when a command needs
them.
"""

from rebus.cli.app import main

__all__ = ["main"]
