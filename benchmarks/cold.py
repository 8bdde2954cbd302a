"""Cold start: the first moe_forward of a fresh process with an empty Triton cache."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from rich.table import Table

from .processes import ROOT, environment

TARGET = 5.0  # seconds
_TIMEOUT = 300.0


@dataclass
class Cold:
    """Seconds. imported: torch and tritonmoe. context: the device's context and the weights. first: the first forward,
    every compilation inside. second: the next one. warm_first: the first forward of another process that finds the
    cache."""

    shape: str
    tokens: int
    imported: float = 0.0
    context: float = 0.0
    first: float = 0.0
    second: float = 0.0
    warm_first: float = 0.0
    failure: str | None = None


def measure(shape: str, tokens: int, dtype: str, device: str) -> Cold:
    """Two processes on one cache folder, which is empty for the first."""
    made = Cold(shape, tokens)
    with tempfile.TemporaryDirectory(prefix="benchmarks-cold-") as cache:
        try:
            cold = _process(shape, tokens, dtype, device, cache)
            warm = _process(shape, tokens, dtype, device, cache)
        except (RuntimeError, subprocess.SubprocessError, OSError) as error:
            made.failure = str(error)[-300:]
            return made
    made.imported, made.context = cold["imported"], cold["context"]
    made.first, made.second, made.warm_first = cold["first"], cold["second"], warm["first"]
    return made


def _process(shape: str, tokens: int, dtype: str, device: str, cache: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.cold", shape, str(tokens), dtype, device],
        env=environment(TRITON_CACHE_DIR=cache),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=_TIMEOUT,
    )
    if done.returncode != 0:
        raise RuntimeError(" ".join(done.stderr.split())[-300:] or f"exit code {done.returncode}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def child(shape: str, tokens: int, dtype: str, device_name: str) -> dict[str, float]:
    """In the fresh process: the four times in seconds."""
    begin = time.perf_counter()
    import torch

    import tritonmoe

    # The names load on first use; a user's first call finds them loaded, so that the import is counted as import.
    forward, rule = tritonmoe.moe_forward, tritonmoe.RouterRule("softmax", renormalize=True)
    imported = time.perf_counter() - begin
    from .layer import DTYPES, make_layer
    from .options import device as resolve
    from .workloads import shapes

    begin = time.perf_counter()
    device = resolve(device_name)
    layer = make_layer(shapes()[shape], DTYPES[dtype], device)
    x = torch.randn((tokens, layer.shape.hidden), device=device).to(DTYPES[dtype])
    router = torch.randn((layer.shape.experts, layer.shape.hidden), device=device).to(DTYPES[dtype])

    def wait() -> None:
        if device.type != "cpu":
            torch.cuda.synchronize(device)

    wait()
    context = time.perf_counter() - begin
    calls = []
    for _ in range(2):
        begin = time.perf_counter()
        forward(x, router, layer.w_gate, layer.w_up, layer.w_down, top_k=layer.shape.top_k, rule=rule)
        wait()
        calls.append(time.perf_counter() - begin)
    return {"imported": imported, "context": context, "first": calls[0], "second": calls[1]}


def table(found: list[Cold]) -> Table:
    made = Table(title=f"seconds, empty Triton cache (target: first call under {TARGET:.0f} s)", title_justify="left")
    for column in ("shape", "T", "import", "context", "first call", "second call", "first call, cache found", ""):
        made.add_column(column)
    for each in found:
        mark = each.failure or ("" if each.first < TARGET else "over the target")
        times = (each.imported, each.context, each.first, each.second, each.warm_first)
        made.add_row(each.shape, str(each.tokens), *(f"{seconds:.3f}" for seconds in times), mark)
    return made


if __name__ == "__main__":
    print(json.dumps(child(sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4])))
