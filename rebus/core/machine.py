"""What the processor can really do: the matrix unit, and a fault of virtual machines that PyTorch does not survive.

Some hypervisors pass on the flags of Intel's matrix unit (AMX) but not the sizes of its tiles (CPUID leaf 1D).
oneDNN, which multiplies PyTorch's bfloat16 and 8-bit matrices, then sets up tiles of zero bytes and dies of an
illegal instruction. With the unit disabled, it uses AVX-512.
"""

import ctypes
import math
import mmap
import os
import sys
from functools import cache
from pathlib import Path

_SETTING, _WITHOUT_AMX = "ONEDNN_MAX_CPU_ISA", "AVX512_CORE_FP16"


def avoid_broken_amx() -> None:
    """Set `ONEDNN_MAX_CPU_ISA` where AMX is announced but unusable; to be called before the first product.

    A value that the user set stays.
    """
    if _SETTING not in os.environ and _amx_is_broken():
        os.environ[_SETTING] = _WITHOUT_AMX


@cache
def rows_for_float32() -> float:
    """Number of rows from which a bfloat16 product is quicker through the float32 units, weights turned on the way.

    On x86 without AVX-512 a few are enough. With it, Intel's cores multiply bfloat16 at half the pace of float32, so
    that many rows pay there unless AMX takes them; AMD's that have the instruction at twice, so that none do.
    """
    told = _told()
    if not told:
        return math.inf
    if "avx512f" not in told:
        return 8
    allowed = "AMX" in os.environ.get(_SETTING, "AMX")
    has_amx = "amx_bf16" in told and allowed and not _amx_is_broken()
    native = "AuthenticAMD" in told and "avx512_bf16" in told
    return math.inf if has_amx or native else 128


@cache
def is_amd() -> bool:
    """Whether the processor is AMD's, for which PyTorch's float32 products (MKL) are not written."""
    return "AuthenticAMD" in _told()


@cache
def multiplies_bfloat16() -> bool:
    """Whether the processor has products of bfloat16 (AVX-512 BF16, with AMX or without)."""
    return "avx512_bf16" in _told()


@cache
def has_integer_dot_products(*, wide: bool = False) -> bool:
    """Whether the processor sums products of 8-bit integers in 32 bits by one instruction (VNNI); `wide`: that of
    AVX-512."""
    return bool(({"avx512_vnni"} if wide else {"avx512_vnni", "avx_vnni"}) & _told())


def _told() -> frozenset[str]:
    """The words in which Linux describes an x86 processor, its flags among them; none elsewhere."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        return frozenset()
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return frozenset()
    return frozenset(text.partition("\n\n")[0].split())


def _amx_is_broken() -> bool:
    """Asked of the processor itself, and only inside a virtual machine that announces AMX."""
    if not {"amx_tile", "hypervisor"} <= _told():
        return False
    try:
        return _cpuid(0x1D, 1)[1] == 0  # bytes a row and tiles of palette 1
    except OSError:  # a hardened system forbids the four instructions below: assume that the processor is honest
        return False


def _cpuid(leaf: int, subleaf: int) -> tuple[int, int, int, int]:
    """EAX, EBX, ECX and EDX: the processor's description of itself, which no file of the system repeats in full."""
    answer = (ctypes.c_uint32 * 4)()
    code = (
        b"\x53\xb8" + leaf.to_bytes(4, "little")  # push rbx; mov eax, leaf
        + b"\xb9" + subleaf.to_bytes(4, "little")  # mov ecx, subleaf
        + b"\x0f\xa2\x48\xbf" + ctypes.addressof(answer).to_bytes(8, "little")  # cpuid; mov rdi, answer
        + b"\x89\x07\x89\x5f\x04\x89\x4f\x08\x89\x57\x0c\x5b\xc3"  # mov [rdi…], eax, ebx, ecx, edx; pop rbx; ret
    )  # fmt: skip
    with mmap.mmap(-1, mmap.PAGESIZE, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC) as page:
        page.write(code)
        start = ctypes.c_char.from_buffer(page)
        ctypes.CFUNCTYPE(None)(ctypes.addressof(start))()
        del start  # or the page could not be closed
    return answer[0], answer[1], answer[2], answer[3]
