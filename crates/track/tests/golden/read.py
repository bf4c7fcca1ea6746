"""Reads what `exsearch report --track RUN` has written with the trackers' own readers, and prints it: python read.py RUN

tensorboard's EventAccumulator, and wandb 0.19's DataStore (as in make_golden.py).
"""
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from wandb.proto import wandb_internal_pb2 as pb
from wandb.sdk.internal.datastore import DataStore

run = Path(sys.argv[1])
events = EventAccumulator(str(run / "tensorboard"), size_guidance={"scalars": 0})
events.Reload()
for tag in sorted(events.Tags()["scalars"]):
    points = events.Scalars(tag)
    steps = [point.step for point in points]
    assert steps == sorted(set(steps)), f"{tag}: a step is there twice or out of order"
    print(f"tensorboard {tag}: {len(points)} points, step {steps[0]} to {steps[-1]}, last {points[-1].value:.4f}")
print("tensorboard tensors:", events.Tags()["tensors"])
for path in run.glob("wandb/offline-run-*/run-*.wandb"):
    store = DataStore()
    store.open_for_scan(str(path))
    kinds = {}
    while data := store.scan_data():
        record = pb.Record.FromString(data)
        kind = record.WhichOneof("record_type")
        kinds[kind] = kinds.get(kind, 0) + 1
        last = record
    print(f"wandb {path.name}: {kinds}, last {last.WhichOneof('record_type')}")
