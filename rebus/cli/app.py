"""From the command line to a command, and from an error to one line and an exit code.

0 done · 1 failed · 2 wrong usage · 130 interrupted. argparse, since it starts in a tenth of the time of richer
libraries, and `rebus --help` is typed often.
"""

import argparse
import os
import re
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from types import FrameType
from typing import Any, NoReturn

from rebus import __version__
from rebus.cli.output import note
from rebus.core.allocator import keep_freed_memory
from rebus.core.errors import RebusError, UsageError, unknown

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

# verb → (file in verbs/, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "models": ("models", "list the models"),
    "info": ("info", "can this model be used here? its card, licence, memory, limits"),
    "classify": ("classify", "zero-shot classification, or sort images into folders"),
    "match": ("match", "similarity of images and texts, or search images by text"),
    "explain": ("explain", "where a text is seen in images: a heat map"),
    "embed": ("embed", "write embeddings of images or texts to a file"),
    "caption": ("caption", "caption images"),
    "ask": ("ask", "answer a question about images"),
    "complete": ("complete", "continue an interleaved document of images and text"),
    "detect": ("detect", "detect objects: boxes for any labels"),
    "segment": ("segment", "segment what a phrase describes: masks"),
    "read": ("read", "read text in images, line by line (OCR)"),
    "imagine": ("imagine", "generate images from text"),
    "index": ("index", "index an image folder; duplicates, clusters, tags"),
    "search": ("search", "search an indexed folder by text, image, or both"),
    "asif": ("asif", "build a model from captioned images without training"),
    "compare": ("compare", "compare models on your own images: answers, quality, time, memory"),
    "train": ("train", "train a model from a recipe"),
    "eval": ("evaluate", "evaluate a model on a benchmark"),
    "data": ("data", "inspect, filter, convert and download data sets"),
    "reproduce": ("reproduce", "test a paper's central claim at small scale"),
    "bench": ("bench", "measure the speed of a model on this machine"),
    "check": ("check", "numerical self-test of a model on this machine"),
    "plan": ("plan", "estimate time, memory and cost of a training run"),
    "serve": ("serve", "serve models over HTTP, with the APIs of OpenAI and the Hub"),
    "tour": ("tour", "offline demonstration: a table of results and a web page"),
}
GROUPS = {
    "models": ("models", "info", "compare"),
    "images and text": (
        "classify",
        "match",
        "explain",
        "embed",
        "caption",
        "ask",
        "complete",
        "detect",
        "segment",
        "read",
        "imagine",
    ),
    "search": ("index", "search"),
    "train and measure": ("data", "plan", "asif", "train", "eval", "reproduce", "bench", "check"),
    "deployment": ("serve",),
    "demonstration": ("tour",),
}


class Parser(argparse.ArgumentParser):
    """argparse whose errors are `UsageError`, with the nearest option for an unknown one."""

    def error(self, message: str) -> NoReturn:
        strange = re.search(r"unrecognized arguments: (-\S+)", message)
        if strange:
            message = str(unknown("option", strange[1].partition("=")[0], self._option_string_actions))
        end = "" if message.endswith(("?", ".")) else "."
        raise UsageError(f"{message}{end} See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code. Without `argv` it is the process's own: interrupts are handled to its
    very end, and memory that is freed is kept."""
    if argv is None:
        keep_freed_memory()
    if argv is None and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _interrupt)
        try:
            return _main(sys.argv[1:])
        finally:
            if signal.getsignal(signal.SIGINT) is _interrupt:  # what Python does at its end would print a traceback
                signal.signal(signal.SIGINT, _end_at_once)
    return _main(sys.argv[1:] if argv is None else argv)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Ctrl-C as a `KeyboardInterrupt`, unless something is being imported: inside the start of a C++ library that
    aborts the process, and others turn it into an `ImportError`."""
    importing = frame
    while importing is not None:
        if importing.f_code.co_filename == "<frozen importlib._bootstrap>":
            _end_at_once(number, frame)
        importing = importing.f_back
    raise KeyboardInterrupt


def _end_at_once(number: int, frame: FrameType | None) -> None:
    os.write(2, b"rebus: interrupted\n")
    os._exit(INTERRUPTED)


def _main(argv: Sequence[str]) -> int:
    words = list(argv)
    _open_what_is_closed()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # file names need not be valid text
    try:
        code = _run(words)
        sys.stdout.flush()
        return code
    except UsageError as error:
        note(str(error))
        return WRONG_USAGE
    except (RebusError, MemoryError) as error:
        note(str(error) or "there is not enough memory")
        return FAILED
    except KeyboardInterrupt:
        if signal.getsignal(signal.SIGINT) is _interrupt:  # a second one must not come in the middle of this
            signal.signal(signal.SIGINT, signal.SIG_IGN)
        note("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`| head`). What is left in the buffer must not complain when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except OSError as error:
        note(f"{error.filename}: {error.strerror}" if error.filename else str(error))
        return FAILED


def _open_what_is_closed() -> None:
    """Without stdout or stderr (`>&-`) the next file that is opened would get its number, and what is printed."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is None:
            opened = os.open(os.devnull, os.O_RDWR)
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
            setattr(sys, name, os.fdopen(number, "r" if number == 0 else "w", closefd=False, encoding="utf-8"))


def _run(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return DONE if words else WRONG_USAGE
    if words[0] == "--version":
        print(f"rebus {__version__}")
        return DONE
    module, parser, rest = parser_for(words)
    options = rest[: rest.index("--")] if "--" in rest else rest  # after it, words are what they say
    if any(word in ("-h", "--help") for word in options):
        print(parser.format_help().rstrip())
        extra = getattr(module, "more_help", None)
        if extra is not None:
            extra([word for word in rest if not word.startswith("-")])
        return DONE
    # argparse knows `--` only where options are not intermixed with the other words
    args = parser.parse_args(rest) if "--" in rest else parser.parse_intermixed_args(rest)
    code: int = module.run(args)
    return code


def parser_for(words: list[str]) -> tuple[Any, Parser, list[str]]:
    """The file and the parser of a command, and its remaining arguments.

    A command with `PARTS` (part → file, what it does) has subcommands: `rebus data inspect`.
    """
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        kind = "option" if verb.startswith("-") else "command"
        raise unknown(kind, verb, [*VERBS, "--help", "--version"], see="`rebus --help` lists the commands.")
    module = import_module(f"rebus.cli.verbs.{VERBS[verb][0]}")
    parts = getattr(module, "PARTS", None)
    if parts is not None and rest and not rest[0].startswith("-"):
        if rest[0] not in parts:
            raise unknown(f"rebus {verb}", rest[0], parts, see=f"`rebus {verb} --help` lists the subcommands.")
        module = import_module(f"rebus.cli.verbs.{parts[rest[0]][0]}")
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    return module, verb_parser(verb, module), rest


def verb_parser(verb: str, module: Any) -> Parser:
    """The options of a command: those of its own file, and `--json`."""
    parser = Parser(
        prog=f"rebus {verb}",
        description=module.__doc__.strip(),
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON document to stdout; logs go to stderr")
    parser.add_argument("-h", "--help", action="store_true", help="show this help")
    return parser


def overview() -> str:
    """The text of `rebus --help`."""
    lines = ["usage: rebus COMMAND [options]", "", "Vision-language models: load, run, train, evaluate.", ""]
    for title, verbs in GROUPS.items():
        lines += [f"{title}:", *(f"  {verb:<10}{VERBS[verb][1]}" for verb in verbs), ""]
    lines += [
        "rebus COMMAND --help lists the options of a command; every command takes --json.",
        "",
        "example:",
        '  rebus classify photos/ --labels "a cat,a dog,a bicycle"',
    ]
    return "\n".join(lines)
