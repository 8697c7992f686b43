"""``/metrics``: counters for Prometheus, by names like vLLM's."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from edgellm.server.answering.metrics import Histogram, Metrics
from edgellm.server.answering.models import ServedModel
from edgellm.server.answering.state import state_of

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

HELP = {
    "num_requests_running": "Answers that are being computed.",
    "num_requests_waiting": "Answers that wait for others to end.",
    "kv_cache_bytes": "Bytes of KV caches: in use, kept for later prompts, and allowed.",
    "prompt_tokens_total": "Prompt tokens that were computed.",
    "prompt_tokens_cached_total": "Prompt tokens that were in a KV cache.",
    "generation_tokens_total": "New tokens.",
    "http_requests_total": "Requests by path and status; 499: the client has left.",
    "disconnects_total": "Requests whose clients left before the end of the answer.",
    "request_success_total": "Answers that were read to their end, by its reason.",
    "time_to_first_token_seconds": "From a request to the first token of an answer.",
    "inter_token_latency_seconds": "From a token of an answer to the next.",
}


async def metrics_page(request: Request) -> Response:
    """Answer with all metrics in Prometheus' text format."""
    state = state_of(request)
    loaded = [model.served for model in state.models if model.served is not None]
    lines = [*_of_models(loaded), *_of_requests(state.metrics)]
    return PlainTextResponse("\n".join(lines) + "\n", headers={"Content-Type": CONTENT_TYPE})


def _of_models(models: Iterable[ServedModel]) -> Iterator[str]:
    """Yield what engines count; their counters begin anew when a model is loaded again."""
    gauges: dict[str, list[str]] = {}

    def note(name: str, kind: str, model: str, value: float, **labels: str) -> None:
        lines = gauges.setdefault(name, _head(name, kind))
        lines.append(_line(name, value, {"model_name": model, **labels}))

    for model in models:
        llm = model.llm
        kv_bytes, stats = llm.kv_bytes, llm.stats
        note("num_requests_running", "gauge", model.name, llm.running)
        note("num_requests_waiting", "gauge", model.name, llm.waiting)
        for state in ("in_use", "kept", "budget"):
            nbytes = getattr(kv_bytes, state)
            note("kv_cache_bytes", "gauge", model.name, nbytes, state=state)
        note("prompt_tokens_total", "counter", model.name, stats.prompt_tokens)
        note("prompt_tokens_cached_total", "counter", model.name, stats.cached_tokens)
        note("generation_tokens_total", "counter", model.name, stats.completion_tokens)
    for lines in gauges.values():
        yield from lines


def _of_requests(metrics: Metrics) -> Iterator[str]:
    yield from _head("http_requests_total", "counter")
    for (path, status), count in sorted(metrics.requests.items()):
        labels = {"endpoint": path, "status": str(status)}
        yield _line("http_requests_total", count, labels)
    yield from _head("disconnects_total", "counter")
    yield _line("disconnects_total", metrics.disconnects)
    yield from _head("request_success_total", "counter")
    for reason, count in sorted(metrics.ends.items()):
        yield _line("request_success_total", count, {"finished_reason": reason})
    yield from _histogram("time_to_first_token_seconds", metrics.first_token)
    yield from _histogram("inter_token_latency_seconds", metrics.between_tokens)


def _histogram(name: str, histogram: Histogram) -> Iterator[str]:
    yield from _head(name, "histogram")
    sums = list(accumulate(histogram.counts))
    bounds = [*(f"{bound:g}" for bound in histogram.bounds), "+Inf"]
    for bound, count in zip(bounds, sums, strict=True):
        yield _line(f"{name}_bucket", count, {"le": bound})
    yield _line(f"{name}_sum", histogram.total)
    yield _line(f"{name}_count", sums[-1])


def _head(name: str, kind: str) -> list[str]:
    return [f"# HELP edgellm_{name} {HELP[name]}", f"# TYPE edgellm_{name} {kind}"]


def _line(name: str, value: float, labels: Mapping[str, str] | None = None) -> str:
    written = ",".join(f'{key}="{_escaped(text)}"' for key, text in (labels or {}).items())
    if written:
        written = f"{{{written}}}"
    return f"edgellm_{name}{written} {value}"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
