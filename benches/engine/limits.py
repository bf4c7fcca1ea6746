"""What the machine can do at most, as torch reaches it: memory read by adding up 1 GiB, and arithmetic in products of f32 matrices.

    python limits.py THREADS
"""
import json
import sys
import time

import torch

torch.set_num_threads(int(sys.argv[1]))


def best(work):
    secs = []
    for _ in range(5):
        start = time.perf_counter()
        work()
        secs.append(time.perf_counter() - start)
    return min(secs)


floats = torch.ones(1 << 28)
a = torch.randn(2048, 2048)
print(json.dumps({"gb_a_sec": floats.nbytes / 1e9 / best(floats.sum), "gflop_a_sec": 2 * 2048**3 / 1e9 / best(lambda: a @ a)}))
