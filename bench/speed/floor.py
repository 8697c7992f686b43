"""The least time that a machine could take, with which each record is compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from edgellm.bench.machine.rates import Rates
from edgellm.bench.records.record import SpeedRecord


def floor_seconds(
    weight_bytes: int | None, flops: float | None, rates: Rates | None, *, passes: int
) -> float | None:
    """Return the least seconds in which the machine reads the weights and multiplies.

    They are read ``passes`` times. It does both at once, so the longer of the two counts; None
    where the weights or the rates are not known.
    """
    if rates is None or weight_bytes is None:
        return None
    reading = passes * weight_bytes / rates.bytes_per_second
    if not flops or not rates.flops_per_second:
        return reading
    return max(reading, flops / rates.flops_per_second)


def with_best_rates(records: Sequence[SpeedRecord]) -> list[SpeedRecord]:
    """Return the records with the best rates of the whole run, by device and threads.

    A backend that was measured while others kept the machine busy looks no better for it.
    """
    best: dict[tuple[str, int | None], Rates] = {}
    for record in records:
        if record.read_gbps is not None:
            flops = record.compute_gflops and 1e9 * record.compute_gflops
            rates = Rates(1e9 * record.read_gbps, flops)
            key = (record.device, record.threads)
            best[key] = rates.best(best.get(key))
    return [
        with_rates(record, best[record.device, record.threads])
        if record.read_gbps is not None
        else record
        for record in records
    ]


def with_rates(record: SpeedRecord, rates: Rates | None) -> SpeedRecord:
    """Return a record with the limits that it is compared with."""
    if rates is None:
        return record
    passes = 1 if record.is_prompt else record.tokens
    return replace(
        record,
        read_gbps=rates.bytes_per_second / 1e9,
        compute_gflops=rates.flops_per_second and rates.flops_per_second / 1e9,
        floor_seconds=floor_seconds(
            record.weight_bytes_per_token, record.flops, rates, passes=passes
        ),
    )
