"""Turns the JSON lines of both sides into the table of runs/bench.sh generation.

    python table.py LINES.jsonl
"""
import json
import sys


def main():
    with open(sys.argv[1]) as lines:
        runs = [json.loads(line) for line in lines]
    print("tokens a second, all sequences together, best of all repeats")
    print(f"{'batch':>5} {'part':<8} {'ours':>8} {'transformers':>13} {'ratio':>7}  same greedy ids")
    for batch in dict.fromkeys(run["batch"] for run in runs):
        ours, torch = ([run for run in runs if run["batch"] == batch and run["side"] == side] for side in ("ours", "transformers"))
        pairs = list(zip(ours[0]["first_ids"], torch[0]["first_ids"], strict=True))
        # Long greedy texts may part where two tokens are equally probable; the first ones tell whether the work is the same.
        n_same = next((idx for idx, (a, b) in enumerate(pairs) if a != b), len(pairs))
        for part in ("prefill", "decode"):
            rates = [
                side[0][f"{part}_tokens"] / min(secs for run in side for secs in run[f"{part}_secs"]) for side in (ours, torch)
            ]
            print(f"{batch:>5} {part:<8} {rates[0]:>8.1f} {rates[1]:>13.1f} {rates[0] / rates[1]:>6.2f}x  {n_same} of {len(pairs)}")


if __name__ == "__main__":
    main()
