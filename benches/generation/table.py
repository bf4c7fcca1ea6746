"""Turns the JSON lines of all sides into the table of runs/bench.sh generation.

    python table.py LINES.jsonl
"""
import json
import sys

SIDES = ("ours f32", "ours int8", "transformers")


def main():
    with open(sys.argv[1]) as lines:
        runs = [json.loads(line) for line in lines]
    print("tokens a second, all sequences together, best of all repeats; ratios to transformers")
    print(f"{'batch':>5} {'part':<8} {'f32':>8} {'int8':>8} {'transformers':>13} {'f32':>7} {'int8':>7}  same greedy ids  weights GB/s")
    for batch in dict.fromkeys(run["batch"] for run in runs):
        f32, int8, torch = ([run for run in runs if run["batch"] == batch and run["side"] == side] for side in SIDES)
        # Long greedy texts may part where two tokens are equally probable; the first ones tell whether the work is the same.
        same = [n_same(side[0], torch[0]) for side in (f32, int8)]
        for part in ("prefill", "decode"):
            rates = [
                side[0][f"{part}_tokens"] / min(secs for run in side for secs in run[f"{part}_secs"]) for side in (f32, int8, torch)
            ]
            # All weights are read once a pass.
            reads = [rate / batch * side[0]["weight_bytes"] / 1e9 for rate, side in zip(rates, (f32, int8))]
            print(f"{batch:>5} {part:<8} {rates[0]:>8.1f} {rates[1]:>8.1f} {rates[2]:>13.1f} {rates[0] / rates[2]:>6.2f}x "
                  f"{rates[1] / rates[2]:>6.2f}x  {same[0]}, {same[1]} of {len(torch[0]['first_ids'])}"
                  + (f"  {reads[0]:.1f}, {reads[1]:.1f}" if part == "decode" else ""))


def n_same(ours, theirs):
    pairs = list(zip(ours["first_ids"], theirs["first_ids"], strict=True))
    return next((idx for idx, (a, b) in enumerate(pairs) if a != b), len(pairs))


if __name__ == "__main__":
    main()
