"""The peak of a process is its own, not that of the one that started it."""

import subprocess
import sys

from rebus.core.memory import peak_of_process


def test_a_large_parent_does_not_count():
    mine = bytearray(300_000_000)
    mine[::4096] = b"1" * len(mine[::4096])
    assert peak_of_process() > 300e6
    code = "from rebus.core.memory import peak_of_process; print(peak_of_process())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert 5e6 < int(done.stdout) < 200e6
