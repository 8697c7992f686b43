"""Files of the bench's records, through ``bench compare`` and ``bench report``."""

import contextlib
import io
import json

from support.bench_records import COMMON, MACHINE, speed

from edgellm.bench.records.kinds import DiskRecord
from edgellm.bench.result_commands.compare import compare
from edgellm.bench.result_commands.report import report
from fuzz.door import Door, as_bytes
from fuzz.json_damage import damage_document, encode, junk

REPORTS = 4
"""Of the cases, the one in so many that is made a page of, which takes ten times as long."""


class BenchRecords(Door):
    name = "bench-records"
    share = 14

    def __init__(self, folder):
        super().__init__(folder)
        machine = MACHINE | {"packages": {"mlx": "0.32", "numpy": "2"}, "chip": "Another"}
        records = [
            speed(threads=4, memory_bytes=10**9, bits=4),
            speed(test="pp512", tokens=512, step_seconds=(0.1, 0.2), environment=machine),
            speed(error="it failed", seconds=()),
            DiskRecord(
                **COMMON, test="disk", chunk_bytes=1 << 20, read_bytes=1 << 28, direct_reads=True,
                seconds=(0.5, 0.6),
            ),
        ]  # fmt: skip
        self.records = [record.as_dict() for record in records]
        whole = as_bytes({"schema": 1, "records": self.records})
        self.keep({"whole.json": whole})

    def damage(self, random):
        if random.random() < 0.6:
            document = {"schema": 1, "records": json.loads(json.dumps(self.records))}
            if random.random() < 0.5:
                record = random.choice(document["records"])
                record[random.choice(list(record))] = junk(random)
            else:
                damage_document(document, random)
            return {"case.json": encode(document, random)}
        lines = []
        for record in self.records:
            line = json.loads(json.dumps({"schema": 1} | record))
            if random.random() < 0.5:
                damage_document(line, random, changes=1)
            lines.append(json.dumps(line).encode())
        if random.random() < 0.2:
            lines[0] = encode(json.loads(lines[0]), random)
        return {"case.jsonl": b"\n".join(lines) + random.choice((b"\n", b"\n", b"", b"\n\n\n"))}

    def open(self, files):
        self.put(files)
        [name] = files
        paths = [self.folder / "whole.json", self.folder / name]
        data = files[name]
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            compare(paths if len(data) % 2 else paths[::-1], json=len(data) % 3 == 0)
            if len(data) % REPORTS == 0:
                report(paths, html=self.folder / "page.html")
