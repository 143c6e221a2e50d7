"""Peak memory and time of the contrastive losses against the batch size: all scores at once, and in chunks.

    python benchmarks/contrastive.py [--batches 1024 2048 4096 8192 16384] [--width 512] [--device cpu] [--json]

Each loss has a process of its own. What counts is the highest memory during loss and gradients, less what the features
and their gradients take.
"""

import argparse
import json
import subprocess
import sys

RUN = """
import json, os, sys, threading, time
import torch
from torch.nn import functional as F
from rebus.core.outputs import Embeddings
from rebus.objectives import sigmoid_contrastive, softmax_contrastive
kind, n, width, device = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
torch.manual_seed(0)
def features(n):
    image, text = (F.normalize(torch.randn(n, width, device=device), dim=1).requires_grad_() for _ in range(2))
    image.grad, text.grad = torch.zeros_like(image), torch.zeros_like(text)
    scale, bias = (torch.tensor(v, device=device, requires_grad=True) for v in (10.0, -10.0))
    return Embeddings(image, text, scale, bias)
def whole(e):
    signs = 2 * torch.eye(len(e.image), device=device) - 1
    return -F.logsigmoid(signs * e.logits).sum() / len(e.image)
loss = {
    "sigmoid in chunks": lambda e: sigmoid_contrastive(e).loss,
    "sigmoid at once": whole,
    "softmax": lambda e: softmax_contrastive(e).loss,
}[kind]
loss(features(64)).backward()
e = features(n)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
cuda = device != "cpu"
before, peak, going = torch.cuda.memory_allocated() if cuda else resident(), 0, True
def watch():
    global peak
    while going:
        peak = max(peak, resident())
        time.sleep(0.002)
thread = threading.Thread(target=watch)
thread.start()
if cuda:
    torch.cuda.reset_peak_memory_stats()
start = time.perf_counter()
loss(e).backward()
if cuda:
    torch.cuda.synchronize()
seconds = time.perf_counter() - start
going = False
thread.join()
peak = torch.cuda.max_memory_allocated() if cuda else max(peak, resident())
print(json.dumps({"loss": kind, "batch": n, "peak_mb": round((peak - before) / 2**20, 1),
                  "seconds": round(seconds, 3)}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batches", type=int, nargs="+", default=[1024, 2048, 4096, 8192, 16_384])
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    for kind in ("sigmoid in chunks", "sigmoid at once", "softmax"):
        for batch in chosen.batches:
            command = [sys.executable, "-c", RUN, kind, str(batch), str(chosen.width), chosen.device]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            row = json.loads(done.stdout) if done.returncode == 0 else {"loss": kind, "batch": batch, "peak_mb": None}
            rows.append(row)
            if not chosen.json:
                said = f"{row['peak_mb']:8.0f} MB  {row['seconds']:7.2f} s" if row["peak_mb"] is not None else "failed"
                print(f"{kind:18} {batch:7,}  {said}", flush=True)
    if chosen.json:
        print(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
