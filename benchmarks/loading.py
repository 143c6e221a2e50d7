"""Peak memory while a CLIP ViT-B/32 or L/14 directory loads, against the size of its weights.

    python benchmarks/loading.py [--preset b32] [--json]

Each way of loading has a process of its own. What counts is the highest resident memory that is the process's own or
mapped from the file, less what it was before loading, when everything had been imported.
"""

import argparse
import json
import subprocess
import sys
import tempfile

LOAD = """
import json, os, sys, threading, time
import torch, rebus.api, rebus.nn.quantized, rebus.models.contrastive.clip
torch.set_num_threads(1)
def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
before, peak, going = resident(), 0, True
def watch():
    global peak
    while going:
        peak = max(peak, resident())
        time.sleep(0.001)
thread = threading.Thread(target=watch)
thread.start()
kind = sys.argv[2]
model = rebus.load(sys.argv[1], device="cpu", **({"quantize": "int8"} if kind == "int8" else {"dtype": kind}))
going = False
thread.join()
peak = max(peak, resident())
weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
print(json.dumps({"peak_mb": (peak - before) / 2**20, "after_mb": (resident() - before) / 2**20,
                  "weights_mb": weights / 2**20}))
"""
MAKE = """
import sys, torch
import rebus
torch.manual_seed(0)
rebus.create(f"clip/{sys.argv[2]}").save(sys.argv[1])
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="b32")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        source = f"{folder}/model"
        subprocess.run([sys.executable, "-c", MAKE, source, chosen.preset], check=True)
        for kind in ("float32", "bfloat16", "int8"):
            done = subprocess.run(
                [sys.executable, "-c", LOAD, source, kind], check=True, capture_output=True, text=True
            )
            rows.append({"kind": kind, **json.loads(done.stdout)})
    whole = rows[0]["weights_mb"]
    for row in rows:
        row["peak_of_weights"] = round(row["peak_mb"] / (whole if row["kind"] == "int8" else row["weights_mb"]), 3)
    if chosen.json:
        print(json.dumps(rows, indent=1))
        return
    for row in rows:
        print(
            f"{row['kind']:9} peak {row['peak_mb']:7.0f} MB, then {row['after_mb']:7.0f} MB, "
            f"{row['peak_of_weights']:.2f} of the weights" + (" in float32" if row["kind"] == "int8" else "")
        )


if __name__ == "__main__":
    main()
