"""From words on the command line to a verb, and from what went wrong to one line and an exit code.

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
from rebus.core.errors import RebusError, UsageError, unknown

DONE, FAILED, WRONG_USAGE, INTERRUPTED = 0, 1, 2, 130

# verb → (file in verbs/, what it does)
VERBS: dict[str, tuple[str, str]] = {
    "models": ("models", "list the models"),
    "info": ("info", "what to know about one model"),
    "classify": ("classify", "sort images into labels of your choice"),
    "match": ("match", "score images against sentences, or find images by words"),
    "embed": ("embed", "vectors of images or texts, into a file"),
    "caption": ("caption", "say what is in an image"),
    "ask": ("ask", "answer a question about an image"),
    "complete": ("complete", "go on with a document of images and text"),
    "detect": ("detect", "find things and draw boxes around them"),
    "segment": ("segment", "find what a phrase names and paint it"),
    "read": ("read", "read the writing in an image, line by line"),
    "imagine": ("imagine", "draw what a text describes"),
    "index": ("index", "make the images of a folder searchable; duplicates, clusters, tags"),
    "search": ("search", "find images of an indexed folder by words, by an image, or both"),
    "asif": ("asif", "a model of one's own captioned images without training; its anchors"),
    "compare": ("compare", "models on your own images: answers, quality, time, memory"),
    "train": ("train", "train a model by a recipe"),
    "eval": ("evaluate", "measure a model on a benchmark"),
    "data": ("data", "look into data sets, filter, convert and download them"),
    "reproduce": ("reproduce", "a paper's central claim in miniature: does it hold here?"),
    "bench": ("bench", "how fast a model is on this machine"),
    "check": ("check", "whether a model works rightly on this machine, in seconds"),
    "plan": ("plan", "time, memory and cost of a training, before it is begun"),
    "serve": ("serve", "answer requests over HTTP, in OpenAI's and the Hub's conventions"),
    "tour": ("tour", "the offline demonstration: a table and a page of images"),
}
GROUPS = {
    "find a model": ("models", "info", "compare"),
    "images and text": (
        "classify",
        "match",
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
    "let others use it": ("serve",),
    "see it all": ("tour",),
}


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UsageError`, with the nearest option for one that does not exist."""

    def error(self, message: str) -> NoReturn:
        strange = re.search(r"unrecognized arguments: (-\S+)", message)
        if strange:
            message = str(unknown("option", strange[1].partition("=")[0], self._option_string_actions))
        end = "" if message.endswith(("?", ".")) else "."
        raise UsageError(f"{message}{end} See: {self.prog} --help")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and give its exit code. Without `argv` it is the process's own: interrupts are handled to its
    very end."""
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
    """The file and the parser of the verb that a command begins with, and the words that are left.

    A verb with `PARTS` (part → file, what it does) has a second word: `rebus data inspect`.
    """
    verb, rest = words[0], words[1:]
    if verb not in VERBS:
        kind = "option" if verb.startswith("-") else "verb"
        raise unknown(kind, verb, [*VERBS, "--help", "--version"], see="`rebus --help` lists the verbs.")
    module = import_module(f"rebus.cli.verbs.{VERBS[verb][0]}")
    parts = getattr(module, "PARTS", None)
    if parts is not None and rest and not rest[0].startswith("-"):
        if rest[0] not in parts:
            raise unknown(f"rebus {verb}", rest[0], parts, see=f"`rebus {verb} --help` lists what there is.")
        module = import_module(f"rebus.cli.verbs.{parts[rest[0]][0]}")
        verb, rest = f"{verb} {rest[0]}", rest[1:]
    return module, verb_parser(verb, module), rest


def verb_parser(verb: str, module: Any) -> Parser:
    """The options of a verb: those of its own file, and `--json`."""
    parser = Parser(
        prog=f"rebus {verb}",
        description=module.__doc__.strip(),
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
        add_help=False,
    )
    module.arguments(parser)
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout; logs stay on stderr")
    parser.add_argument("-h", "--help", action="store_true", help="this text")
    return parser


def overview() -> str:
    """The text of `rebus --help`."""
    lines = ["usage: rebus VERB [options]", "", "Models that join images and text: pick, run, train, measure.", ""]
    for title, verbs in GROUPS.items():
        lines += [f"{title}:", *(f"  {verb:<10}{VERBS[verb][1]}" for verb in verbs), ""]
    lines += [
        "rebus VERB --help has the options of a verb and an example; every verb takes --json.",
        "",
        "example:",
        '  rebus classify photos/ --labels "a cat,a dog,a bicycle"',
    ]
    return "\n".join(lines)
