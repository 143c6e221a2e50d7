"""What users read is in the field's own terms: README, docs, changelog, help, docstrings of public names, messages.

Each old term is a pattern with the term to use in its place. Code in backticks, and what `ALLOWED` gives a reason for,
is not looked at.
"""

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from rebus.cli.app import VERBS, overview, verb_parser

ROOT = Path(__file__).parents[1]

OLD = {  # pattern → what to say instead
    r"pictures?": "image",
    r"writers?": "generative model, decoder",
    r"towers?": "image encoder, text encoder",
    r"eyes?": "image encoder",
    r"told|tells? (?:the|of|what|which|how|them|it)\b": "given, specified, distinguished; says",
    r"join\w* (?:images?|text) (?:to|and|with) (?:words?|text|images?)": "vision-language model",
    r"(?:by|in) words": "by text, text queries",
    r"words (?:everyone|everybody) shares?": "shared types",
    r"work(?:s|ed|ing)? out": "compute",
    r"(?:is|are|be|was) found out": "auto-detected",
    r"by (?:itself|themselves)": "auto-detected, alone, independently",
    r"whole or (?:not|absent)|in one piece|(?:written|commits? \w+) whole": "atomically",
    r"go(?:es|ing)? on (?:where|from|with|at|by|in)": "resume, continue",
    r"verbs?": "command",
    r"rightly|right answers?|is the right one": "correctly, ground truth, correct",
    r"shares? of (?:[\w-]+ ){0,6}(?:right|correct)": "accuracy",
    r"on (?:the|its) way (?:back|forward)|for the way back|way (?:back|forward) (?:must|happens)": "backward pass",
    r"heads? of (?:keys|attention)": "key-value head, attention head",
    r"heads? of (?:a|the|each) file": "file header",
    r"thin matrices": "LoRA adapters",
    r"likeness(?:es)?": "similarity",
    r"by lot": "at random",
    r"plans? of (?:the )?(?:learning )?rates?|rate's plan": "learning-rate schedule",
    r"answer (?:stands|leaks?) in": "target leaks into the prompt",
    r"whoever": "whatever reads, a caller that",
    r"anew": "again",
    r"one's own": "your own, custom",
    r"mend(?:s|ed|ing)?": "fix",
    r"taught": "trained, distilled",
    r"paint(?:s|ed|ing)?": "segment, mask",
    r"dealt out|deals? (?:them )?out": "shard",
    r"(?<!ground )(?<!of )the truth": "ground truth",
    r"stations?": "step, section",
    r"drawn shapes": "synthetic shapes",
    r"a training (?!run|split|set|step|image|loop|data|job|loss|photo|batch|example)": "a training run",
    r"misshapen": "of the wrong shape",
    r"wants": "expects, needs",
}
ALLOWED = {  # what is taken out before the search → why
    r"~/Pictures": "the folder's name on most systems",
    r"a (?:small )?picture of|a painting of": "prompts that models were trained with",
    r"data\.taught(?:=\w+)?|--out taught/?|TAUGHT": "the name of a setting, and of folders for it",
    r"told=true": "the name of a setting",
    r"in pictures/ or images/": "the folder of the OBELICS reader",
    r"torch\.eye": "PyTorch's identity matrix",
    r"right in words": "the key of a figure in saved results",
}
PROMPTS = ("rebus/data/scenes/", "rebus/evaluate/benchmarks/coco_words.py", "rebus/reproduce/shapes_world.py")


def pages() -> Iterator[tuple[str, str]]:
    for page in sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("benchmarks/*.md")]):
        line = 1
        for paragraph in page.read_text().split("\n\n"):
            yield f"{page.relative_to(ROOT)}:{line}", paragraph
            line += paragraph.count("\n") + 2


def helps() -> Iterator[tuple[str, str]]:
    yield "rebus --help", overview()
    for verb, (name, _) in VERBS.items():
        module = import_module(f"rebus.cli.verbs.{name}")
        yield f"rebus {verb} --help", verb_parser(verb, module).format_help()
        for part, (file, _) in getattr(module, "PARTS", {}).items():
            part_module = import_module(f"rebus.cli.verbs.{file}")
            yield f"rebus {verb} {part} --help", verb_parser(f"{verb} {part}", part_module).format_help()


def docstrings_and_messages() -> Iterator[tuple[str, str]]:
    for file in sorted(ROOT.glob("rebus/**/*.py")):
        name = str(file.relative_to(ROOT))
        nodes = list(ast.walk(ast.parse(file.read_text())))
        docs, inside = {}, set()
        for node in nodes:
            if (
                isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
                and ast.get_docstring(node, False) is not None
            ):
                docs[id(node.body[0].value)] = not getattr(node, "name", "").startswith("_")
            elif isinstance(node, ast.JoinedStr):
                inside.update(map(id, node.values))
        for node in nodes:
            if isinstance(node, ast.JoinedStr):
                text = "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in inside:
                text = node.value
            else:
                continue
            is_message = id(node) not in docs and " " in text.strip() and not name.startswith(PROMPTS)
            if docs.get(id(node)) or is_message:
                yield f"{name}:{node.lineno}", text


TERMS = {re.compile(rf"\b(?:{pattern})\b", re.IGNORECASE): better for pattern, better in OLD.items()}
ANY = re.compile("|".join(term.pattern for term in TERMS), re.IGNORECASE)


def old_terms(text: str) -> list[str]:
    text = re.sub(r"`[^`\n]*`", "`…`", text)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = " ".join(text.split())
    for allowed in ALLOWED:
        text = re.sub(allowed, "…", text)
    found = []
    for term, better in TERMS.items() if ANY.search(text) else ():  # most texts have none
        for hit in term.finditer(text):
            around = text[max(0, hit.start() - 30) : hit.end() + 30]
            found.append(f"{hit[0]!r} in “…{around}…”; better: {better}")
    return found


@pytest.mark.parametrize("texts", [pages, helps, docstrings_and_messages])
def test_no_old_term_is_left(texts):
    count, found = 0, []
    for place, text in texts():
        count += 1
        found += [f"{place}: {term}" for term in old_terms(text)]
    assert count > 30
    assert not found, "\n".join(found)


def test_old_terms_are_found_over_line_breaks_but_not_in_code():
    assert len(old_terms("two towers for\npictures")) == 2
    assert "vision-language model" in " ".join(old_terms("models that join\n  images to words"))
    assert old_terms("`writer.py`, a picture of a cat, told=true") == []
