"""Verbs, exit codes and errors, before any model comes in."""

import shlex
import subprocess
import sys
from importlib import import_module

import pytest

from rebus.cli.app import GROUPS, VERBS, verb_parser


def test_help_lists_every_verb(run):
    code, out, err = run("--help")
    assert (code, err) == (0, "")
    assert all(f"  {verb}" in out for verb in VERBS)
    assert sorted(verb for verbs in GROUPS.values() for verb in verbs) == sorted(VERBS)


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_help_with_an_example_and_json(run, verb):
    code, out, _ = run(verb, "--help")
    assert code == 0
    assert "example:\n  rebus " in out
    assert "--json" in out


@pytest.mark.parametrize("verb", VERBS)
def test_the_example_of_every_verb_parses(verb):
    import shlex

    module = import_module(f"rebus.cli.verbs.{VERBS[verb][0]}")
    words = shlex.split(module.EXAMPLE)
    assert words[:2] == ["rebus", verb]
    verb_parser(verb, module).parse_intermixed_args(words[2:])


@pytest.mark.parametrize(
    "words, said",
    [
        (("clasify", "a.jpg"), 'did you mean "classify" or'),
        (("--versoin",), "--version"),
        (("classify", "a.jpg", "--labls", "a"), 'no option "--labls"; did you mean "--labels"'),
        (("classify", "--labels", "a"), "IMAGE"),
        (("classify", "a.jpg"), "--labels"),
        (("classify", "a.jpg", "--labels", " , "), "is empty"),
        (("classify", "a.jpg", "--labels", "a", "--labels-file", "x"), "not both"),
        (("caption", "a.jpg", "--max-new-tokens", "0"), "above 0"),
        (("caption", "a.jpg", "--dtype", "float8"), "float8"),
        (("ask", "a.jpg"), "QUESTION"),
        (("ask", "a.jpg", "  "), "empty"),
        (("models", "--family", "contrastve"), 'did you mean "contrastive"?'),
        (("models", "--task", "captoin"), 'did you mean "caption"?'),
        (("info", "clip/b23"), 'did you mean "clip/b32"'),
        (("train", "clip_scene"), 'did you mean "clip_scenes"'),
        (("train", "clip_scenes"), "--out DIR"),
        (("train", "clip_scenes", "--set", "optim.lrr=1", "--show"), 'did you mean "optim.lr"'),
        (("eval", "clip/b32", "scense"), 'did you mean "scenes"'),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_wrong_usage_is_one_line_and_exit_code_2(run, words, said):
    code, out, err = run(*words)
    assert (code, out) == (2, "")
    assert err.startswith("rebus: ")
    assert err.count("\n") == 1
    assert said in err


def test_no_verb_is_wrong_usage(run):
    assert run()[0] == 2


def test_help_and_models_import_nothing_heavy():
    code = (
        "import sys; from rebus.cli import main; main(['--help']); main(['models']); main(['classify', '--help']);"
        "sys.exit(', '.join({'torch', 'numpy', 'rich', 'PIL.Image', 'huggingface_hub'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_a_reader_that_leaves_is_no_failure():
    command = [sys.executable, "-m", "rebus.cli", "models", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()
        assert process.wait() == 0
        assert process.stderr.read() == b""


@pytest.mark.parametrize("end", [">&-", "2>&-", "<&- >&- 2>&-", "| head -0", "2>&1 | head -0"])
def test_closed_streams(end):
    command = f"set -o pipefail; {shlex.quote(sys.executable)} -m rebus.cli models {end}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "Traceback" in done.stderr, "Exception" in done.stderr) == (0, False, False)
