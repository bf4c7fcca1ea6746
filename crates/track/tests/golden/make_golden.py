"""Writes the golden files of tests/trackers/files.rs with the trackers' own code.

Needs tensorboard (2.21.0 was used), and wandb 0.19.11, the last series whose reader and writer are Python:
  pip install tensorboard wandb==0.19.11
  python make_golden.py FOLDER
The record is that of `record()` in tests/trackers/common.rs.
"""
import sys
from pathlib import Path

from tensorboard.compat.proto import event_pb2, summary_pb2
from tensorboard.summary.writer.record_writer import RecordWriter
from wandb.proto import wandb_internal_pb2 as pb
from wandb.sdk.internal.datastore import DataStore

out = Path(sys.argv[1])


def events(name, wall, events):
    with open(out / name, "wb") as file:
        writer = RecordWriter(file)
        writer.write(event_pb2.Event(wall_time=wall, file_version="brain.Event:2").SerializeToString(deterministic=True))
        for event in events:
            writer.write(event.SerializeToString(deterministic=True))


def scalars(wall, step, **values):
    value = [summary_pb2.Summary.Value(tag=tag.replace("__", "/"), simple_value=it) for tag, it in values.items()]
    return event_pb2.Event(wall_time=wall, step=step, summary=summary_pb2.Summary(value=value))


text = summary_pb2.Summary.Value(tag="config/text_summary")
text.metadata.plugin_data.plugin_name = "text"
text.tensor.dtype = 7
text.tensor.tensor_shape.dim.add().size = 1
text.tensor.string_val.append(b"    seed = 7\n    title = \"t\"\n")
config = event_pb2.Event(wall_time=1000.5, summary=summary_pb2.Summary(value=[text]))
events("0000-config.tfevents", 1000.5, [config])
events("0001-untrained-dev.tfevents", 1010.0, [scalars(1010.0, 0, dev__f1=0.25)])
training = [scalars(1020.25, 1, train__loss=2.5), scalars(1020.25, 300, train__loss=-0.0)]
events("0002-warmup-training.tfevents", 1020.25, training)

store = DataStore()
store.open_for_write(str(out / "run.wandb"))
number = 0


def put(**record):
    global number
    number += 1
    store._write_data(pb.Record(num=number, **record).SerializeToString(deterministic=True))


def items(kind, fields):
    return [kind(key=key, value_json=value) for key, value in fields.items()]


put(header=pb.HeaderRecord())
run = pb.RunRecord(run_id="abcd1234", entity="team", project="exsearch", display_name="t")
run.start_time.seconds, run.start_time.nanos = 1000, 500_000_000
put(run=run)
put(config=pb.ConfigRecord(update=items(pb.ConfigItem, {"seed": "7", "em": '{"samples":4}'})))
for name, axis in [("dev/f1", "stage"), ("train/loss", "train/step")]:
    put(metric=pb.MetricRecord(name=name, step_metric=axis, options=pb.MetricOptions(defined=True)))
rows = [
    {"dev/f1": "0.25", "stage": "0", "_step": "0", "_timestamp": "1010.0", "_runtime": "9.5"},
    {"train/loss": "2.5", "train/step": "1", "_step": "1", "_timestamp": "1020.25", "_runtime": "19.75"},
    {"train/loss": "-0.0", "train/step": "300", "_step": "2", "_timestamp": "1020.25", "_runtime": "19.75"},
]
summary = {}
for idx, row in enumerate(rows):
    put(history=pb.HistoryRecord(item=items(pb.HistoryItem, row), step=pb.HistoryStep(num=idx)))
    summary.update(row)
put(summary=pb.SummaryRecord(update=items(pb.SummaryItem, summary)))
put(exit=pb.RunExitRecord(exit_code=0, runtime=19))
put(footer=pb.FooterRecord())
store.close()
