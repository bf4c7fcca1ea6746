"""The tables of runs/bench-engine.sh, of the parts that are there.

    python table.py RESULTS
"""
import json
import pathlib
import sys


def main():
    results = pathlib.Path(sys.argv[1])
    parts = {path.stem: json.loads(path.read_text()) for path in results.glob("*.json") if path.stat().st_size}
    model, limits = parts.get("model"), parts.get("limits")
    if model:
        print(f"{model['threads']} threads, f32 weights of {model['bytes'] / 1e6:.0f} MB")
    samples = [run for name, run in parts.items() if name.startswith("sample-")]
    if samples:
        trajectories(samples)
    tokens = [run for name, run in parts.items() if name.startswith("tokens-")]
    if tokens and model:
        rates(tokens, model, limits)


def trajectories(runs):
    print("\ntrajectories, the whole process timed (of serial transformers: `generate` only)")
    print(f"{'side':<20} {'trajectories':>12} {'secs':>8} {'a minute':>9} {'ours to it':>10} {'own tokens':>10} {'turns':>6} {'failed':>7}")
    rows = []
    for run in runs:
        if "trajectories" in run:
            lines = [json.loads(line) for line in pathlib.Path(run["trajectories"]).read_text().splitlines()]
            turns = [segment for line in lines for segment in line["segments"] if segment["author"] == "model"]
            n, n_failed = len(lines), sum(line["outcome"] != "answered" and "failed" in line["outcome"] for line in lines)
            own, n_turns = sum(len(turn["ids"]) for turn in turns) / n, len(turns) / n
        else:
            n, n_failed, own, n_turns = run["n_trajectories"], 0, run["tokens_a_trajectory"], run["turns_a_trajectory"]
        rows.append((run["side"], n, run["secs"], n / run["secs"] * 60, own, n_turns, n_failed))
    rows.sort(key=lambda row: (row[0] != "ours", row[0]))
    ours = rows[0][3] if rows[0][0] == "ours" else None
    for side, n, secs, rate, own, n_turns, n_failed in rows:
        ratio = f"{ours / rate:.2f}x" if ours else "-"
        print(f"{side:<20} {n:>12} {secs:>8.1f} {rate:>9.1f} {ratio:>10} {own:>10.1f} {n_turns:>6.2f} {n_failed:>7}")


def rates(runs, model, limits):
    print("\ntokens a second, all sequences together, best of the repeats")
    print(f"{'batch':>5} {'part':<8} {'side':<16} {'tokens/s':>9} {'ours to it':>10} {'GB/s':>6} {'GFLOP/s':>8}  share of the limit")
    for batch in sorted({run["batch"] for run in runs}):
        for part in ("prefill", "decode"):
            of_batch = [run for run in runs if run["batch"] == batch]
            of_batch.sort(key=lambda run: (not run["side"].startswith("ours"), run["side"]))
            rate = {run["side"]: run[f"{part}_tokens"] / min(run[f"{part}_secs"]) for run in of_batch}
            for run in of_batch:
                side, tokens = run["side"], rate[run["side"]]
                ratio = f"{rate['ours f32'] / tokens:.2f}x" if "ours f32" in rate else "-"
                # Every step of decoding reads all weights once; every token takes a product and a sum for each of them, in prefill
                # without the head, which is computed once a prompt. Attention is not counted.
                read = tokens / batch * run.get("weight_bytes", model["bytes"]) / 1e9 if part == "decode" else None
                flops = tokens * (model["bytes"] - (model["head_bytes"] if part == "prefill" else 0)) / 4 * 2 / 1e9
                share = ""
                if limits:
                    # The limit of arithmetic is that of f32.
                    shares = {"arithmetic": flops / limits["gflop_a_sec"], "memory": (read or 0) / limits["gb_a_sec"]}
                    name = max(shares, key=shares.get)
                    share = f"{shares[name]:.0%} of {name}"
                print(f"{batch:>5} {part:<8} {side:<16} {tokens:>9.1f} {ratio:>10} {f'{read:.1f}' if read else '-':>6} {flops:>8.1f}  {share}")
    if limits:
        print(f"the limits, as torch reaches them: {limits['gb_a_sec']:.1f} GB/s read, {limits['gflop_a_sec']:.0f} GFLOP/s")


if __name__ == "__main__":
    main()
