"""Bytes of gate and up, fused and unfused: the model, the time, and a profiler's counters where there is one.

The reference paper claims 35 % less global traffic from the fusion. How much there is to save depends on the problem:
the weights must be read either way, and only what lies between the products (g and u, written and read again) can go.
"""

from __future__ import annotations

import csv
import io
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from rich.table import Table

import tritonmoe

from .competitors.ours import ACTIVATION, RULE
from .floor import gate_up_traffic
from .layer import DTYPES, Batch, Layer, make_batch, make_layer
from .processes import ROOT, environment
from .timing import Call, Clock, NotCapturable, Sample
from .workloads import Shape, shapes

PAPER = 0.35
KINDS = ("fused", "unfused")
_METRICS = ("dram__bytes_read.sum", "dram__bytes_write.sum")
_UNITS = {"byte": 1.0, "Kbyte": 1e3, "Mbyte": 1e6, "Gbyte": 1e9}


@dataclass
class Traffic:
    """A shape and token count. By kind: model, bytes; seconds, median; counted, bytes by the profiler."""

    shape: str
    tokens: int
    active: int
    model: dict[str, float]
    seconds: dict[str, float]
    counted: dict[str, float]
    note: str | None = None

    def saved(self, values: dict[str, float]) -> float | None:
        """1 - fused / unfused, or None without both."""
        return 1.0 - values["fused"] / values["unfused"] if set(KINDS) <= set(values) else None

    def as_data(self) -> dict[str, object]:
        return {**asdict(self), "saved": self.saved(self.model), "saved_counted": self.saved(self.counted)}


def calls(layer: Layer, batch: Batch) -> dict[str, Call]:
    """fused: our gate_up. unfused: two products and torch's activation, the products by our down kernel.

    The down kernel is a plain grouped product, so both kinds use the same technology and differ by the fusion alone. It
    takes sorted rows, which are gathered here, outside what is measured: in favour of the unfused form.
    """
    ids, _ = tritonmoe.select_experts(batch.logits, layer.shape.top_k, RULE)
    permutation = tritonmoe.permute(ids, layer.shape.experts)
    rows = batch.x[permutation.order.long() // layer.shape.top_k]

    def unfused() -> torch.Tensor:
        gate = tritonmoe.down(rows, permutation, layer.w_gate)
        up = tritonmoe.down(rows, permutation, layer.w_up)
        return F.silu(gate).mul_(up)

    return {
        "fused": lambda: tritonmoe.gate_up(batch.x, permutation, layer.w_gate, layer.w_up, ACTIVATION),
        "unfused": unfused,
    }


def measure(layer: Layer, tokens: int, dtype: str, clock: Clock, profile: bool) -> Traffic:
    """Model, times and, with profile, counters of one case."""
    batch = make_batch(layer.shape, tokens, "uniform", DTYPES[dtype], clock.device)
    model = gate_up_traffic(layer.shape, tokens, batch.active, batch.x.element_size())
    made = Traffic(layer.shape.name, tokens, batch.active, model, {}, {})
    try:
        made.seconds = {kind: _time(clock, call).median for kind, call in calls(layer, batch).items()}
    except Exception as error:
        made.note = f"not timed: {type(error).__name__}: {error}"
    if profile:
        try:
            made.counted = {kind: counted(kind, layer.shape, tokens, dtype) for kind in KINDS}
        except (OSError, RuntimeError, ValueError, subprocess.SubprocessError) as error:
            made.note = f"no counters: {str(error)[:300]}"
    return made


def _time(clock: Clock, call: Call) -> Sample:
    try:
        return clock.replayed(call)
    except NotCapturable:
        return clock.eager(call)


def profiler() -> str | None:
    """Nsight Compute's command line, if it is on the path."""
    return shutil.which("ncu")


def counted(kind: str, shape: Shape, tokens: int, dtype: str) -> float:
    """Bytes that one call read from and wrote to device memory, by the hardware's counters, caches cold.

    Raises RuntimeError with the profiler's last words where it is missing or not allowed to count.
    """
    command = profiler()
    if command is None:
        raise RuntimeError("no profiler (ncu) on the path")
    arguments = [command, "--metrics", ",".join(_METRICS), "--csv", "--profile-from-start", "off"]
    arguments += ["--cache-control", "all", sys.executable, "-m", "benchmarks.traffic", kind, shape.name, str(tokens)]
    done = subprocess.run([*arguments, dtype], capture_output=True, text=True, timeout=180, cwd=ROOT, env=environment())
    total = parse(done.stdout)
    if total is None:
        said = " ".join((done.stdout + done.stderr).split())[-300:]
        raise RuntimeError(f"ncu counted nothing: {said}")
    return total


def parse(text: str) -> float | None:
    """Sum of the two metrics over all kernels in ncu's CSV (in which other lines may stand); None without any."""
    lines = text.splitlines()
    header = next((index for index, line in enumerate(lines) if "Metric Name" in line and "Metric Value" in line), None)
    if header is None:
        return None
    values = [
        float(row["Metric Value"].replace(",", "")) * _UNITS[row["Metric Unit"]]
        for row in csv.DictReader(io.StringIO("\n".join(lines[header:])))
        if row.get("Metric Name") in _METRICS
    ]
    return sum(values) if values else None


def child(kind: str, shape: str, tokens: int, dtype: str) -> None:
    """What the profiler runs: warm-up outside, one call inside the profiled range."""
    device = torch.device("cuda", torch.cuda.current_device())
    layer = make_layer(shapes()[shape], DTYPES[dtype], device)
    call = calls(layer, make_batch(layer.shape, tokens, "uniform", DTYPES[dtype], device))[kind]
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


def table(found: list[Traffic]) -> Table:
    made = Table(
        title=f"gate and up: bytes fused | unfused, saved (the paper claims {PAPER:.0%})", title_justify="left"
    )
    for column in ("shape", "T", "e", "model MB", "saved", "counted MB", "saved", "µs", "note"):
        made.add_column(column)
    for each in found:
        row = [each.shape, str(each.tokens), str(each.active)]
        for values, scale, with_saved in (
            (each.model, 1e-6, True),
            (each.counted, 1e-6, True),
            (each.seconds, 1e6, False),
        ):
            row.append(" | ".join(f"{values[kind] * scale:.0f}" if kind in values else "-" for kind in KINDS))
            if with_saved:
                saved = each.saved(values)
                row.append("-" if saved is None else f"{saved:.0%}")
        made.add_row(*row, each.note or "")
    return made


if __name__ == "__main__":
    child(sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4])
