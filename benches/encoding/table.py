"""Turns the JSON lines of both sides into a table of passages a CPU-second.

    python table.py LINES.jsonl
"""
import json
import sys


def main():
    with open(sys.argv[1]) as lines:
        runs = [json.loads(line) for line in lines]
    sides = dict.fromkeys(run["side"] for run in runs)
    best = {}
    for side in sides:
        of_side = [run for run in runs if run["side"] == side]
        cpu, wall = (min(secs for run in of_side for secs in run[field]) for field in ("cpu_secs", "wall_secs"))
        best[side] = (of_side[0]["n_passages"] / cpu, of_side[0]["n_passages"] / wall)
    ours = runs[0]
    assert ours["side"] == "ours", "our line comes first"
    print(f"{ours['n_passages']} passages, {ours['threads']} threads, the least CPU time of all repeats, tokenization included")
    print(f"{'side':<32} {'passages/CPU-s':>15} {'passages/s':>11} {'ours/it':>9}  largest difference, least cosine")
    for side, (per_cpu, per_second) in best.items():
        vectors = next(run["vectors"] for run in runs if run["side"] == side)
        pairs = [list(zip(x, y, strict=True)) for x, y in zip(ours["vectors"], vectors, strict=True)]
        difference = max(abs(a - b) for pair in pairs for a, b in pair)
        # All vectors have the length 1.
        cosine = min(sum(a * b for a, b in pair) for pair in pairs)
        print(f"{side:<32} {per_cpu:>15.1f} {per_second:>11.1f} {best['ours'][0] / per_cpu:>8.2f}x  {difference:.1e}, {cosine:.5f}")


if __name__ == "__main__":
    main()
