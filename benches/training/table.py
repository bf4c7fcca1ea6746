"""Turns the JSON lines of both sides into the table of runs/bench.sh training; fails where the sides did not do the same work.

    python table.py LINES.jsonl
"""
import json
import statistics
import sys

# Of every step's loss, relative.
LOSS_TOLERANCE = 1e-3


def main():
    with open(sys.argv[1]) as lines:
        runs = [json.loads(line) for line in lines]
    print(f"{'config':<24} {'ours s':>8} {'torch s':>8} {'speed':>7} {'ours GB':>8} {'torch GB':>9} {'memory':>7}  losses, first and last")
    differ = False
    for config in dict.fromkeys(run["config"] for run in runs):
        ours, torch = ([run for run in runs if run["config"] == config and run["side"] == side] for side in ("ours", "torch"))
        secs = [statistics.median(secs for run in side for secs in run["step_secs"]) for side in (ours, torch)]
        # 1 GB = 10^9 bytes.
        gigabytes = [max(run["peak_bytes"] for run in side) / 1e9 for side in (ours, torch)]
        losses = [side[0]["losses"] for side in (ours, torch)]
        same = all(abs(a - b) <= LOSS_TOLERANCE * abs(b) for a, b in zip(*losses, strict=True))
        differ |= not same
        print(
            f"{config:<24} {secs[0]:>8.2f} {secs[1]:>8.2f} {secs[1] / secs[0]:>6.2f}x "
            f"{gigabytes[0]:>8.2f} {gigabytes[1]:>9.2f} {gigabytes[0] / gigabytes[1]:>6.2f}x  "
            + " / ".join(f"{side[0]:.5f} .. {side[-1]:.5f}" for side in losses)
            + ("" if same else "  NOT THE SAME WORK")
        )
    print("speed = torch s / ours s, more is better; memory = ours GB / torch GB, less is better")
    # Libraries; most with a CUDA wheel, which holds memory for a GPU that is not used.
    library_gb = max(run["library_bytes"] for run in runs if run["side"] == "torch") / 1e9
    print(f"of torch's memory {library_gb:.2f} GB are there before the model is loaded")
    sys.exit(differ)


if __name__ == "__main__":
    main()
