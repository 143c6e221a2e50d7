"""The commands and clients of the page "Serve" run."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[2] / "docs" / "tasks" / "serve.md").read_text()
CLIENTS = re.findall(r"```py\n(.*?)```", PAGE, re.S)
COMMANDS = re.findall(r"^\$ (curl .*)$", PAGE, re.M)


@pytest.fixture
def scene_file(tmp_path, monkeypatch):
    from tests.serve.conftest import file_of, image_of

    monkeypatch.chdir(tmp_path)
    Path("scene.png").write_bytes(file_of(image_of()))


@pytest.mark.parametrize("code", CLIENTS, ids=["openai", "huggingface_hub"])
def test_clients_of_the_page_run(code, url, scene_file):
    exec(compile(code.replace("http://127.0.0.1:8000", url), "snippet", "exec"), {"__name__": "snippet"})


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_commands_of_the_page_run(url, scene_file):
    assert len(COMMANDS) == 6
    for command in COMMANDS:
        words = shlex.split(command.replace("localhost:8000", url.removeprefix("http://")))
        done = subprocess.run([words[0], "--fail", *words[1:]], capture_output=True, text=True, check=False)
        assert done.returncode == 0, (command, done.stderr)
        assert done.stdout.startswith("{")
