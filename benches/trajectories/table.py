"""Turns the times of `exsearch sample` and the line of serial_transformers.py into the table of runs/bench.sh trajectories.

    python table.py TRAJECTORIES.jsonl PEER.json OUR_SECS...
"""
import json
import statistics
import sys


def main():
    trajectories, peer_path, *our_secs = sys.argv[1:]
    with open(trajectories) as lines:
        n_ours = sum(1 for _ in lines)
    with open(peer_path) as text:
        peer = json.load(text)
    # Each run of ours stands alone; the runs lie before and after the peer's, so that a machine that slows down shows.
    ours = n_ours / statistics.mean(map(float, our_secs)) * 60
    theirs = peer["n_trajectories"] / peer["secs"] * 60
    row("side", "trajectories", "secs", "a minute", "ratio")
    row("ours", n_ours, " ".join(f"{float(secs):.1f}" for secs in our_secs), f"{ours:.1f}", f"{ours / theirs:.1f}x")
    row(peer["side"], peer["n_trajectories"], f"{peer['secs']:.1f}", f"{theirs:.1f}", "1.0x")
    print("the peer's part of the work against all of it:")
    for name in ("tokens_a_trajectory", "turns_a_trajectory", "context_tokens_a_turn"):
        print(f"  {name.replace('_', ' ')}: {peer[name]:.1f} against {peer[name + '_of_all']:.1f}")


def row(side, n, secs, rate, ratio):
    print(f"{side:<20} {n:>12} {secs:>16} {rate:>9} {ratio:>7}")


if __name__ == "__main__":
    main()
