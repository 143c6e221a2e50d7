import subprocess
import sys

from rebus.core import machine


def test_the_setting_is_made_only_where_amx_lies(monkeypatch):
    amx = {"GenuineIntel", "amx_tile", "amx_bf16"}
    for told, tiles, expected in (
        ({*amx, "hypervisor"}, 0, machine._WITHOUT_AMX),
        ({*amx, "hypervisor"}, 1 << 26, None),
        (amx, 0, None),  # bare metal is believed
        (set(), 0, None),
    ):
        monkeypatch.delenv(machine._SETTING, raising=False)
        monkeypatch.setattr(machine, "_told", lambda told=told: frozenset(told))
        monkeypatch.setattr(machine, "_cpuid", lambda leaf, subleaf, tiles=tiles: (0, tiles, 0, 0))
        machine.avoid_broken_amx()
        assert machine.os.environ.get(machine._SETTING) == expected


def test_what_the_user_set_stays(monkeypatch):
    monkeypatch.setenv(machine._SETTING, "AVX2")
    monkeypatch.setattr(machine, "_amx_is_broken", lambda: True)
    machine.avoid_broken_amx()
    assert machine.os.environ[machine._SETTING] == "AVX2"


def test_half_precision_products_do_not_kill_the_process():
    code = "import rebus.nn, torch; x = torch.ones(64, 64, dtype=torch.bfloat16); print((x @ x).sum().item())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(64.0**3), done


def test_how_many_rows_go_through_the_float32_units(monkeypatch):
    never = float("inf")
    for told, expected in (
        (set(), never),  # not x86
        ({"GenuineIntel"}, 8),
        ({"GenuineIntel", "avx512f"}, 128),
        ({"GenuineIntel", "avx512f", "avx512_bf16"}, 128),
        ({"GenuineIntel", "avx512f", "avx512_bf16", "amx_bf16"}, never),
        ({"AuthenticAMD", "avx2"}, 8),
        ({"AuthenticAMD", "avx512f", "avx512_bf16"}, never),
    ):
        monkeypatch.setattr(machine, "_told", lambda told=told: frozenset(told))
        monkeypatch.delenv(machine._SETTING, raising=False)
        assert machine.rows_for_float32.__wrapped__() == expected
