"""Prometheus text from a metrics port, as plain numbers."""

import asyncio
import urllib.request
from http.client import HTTPException

from prometheus_client.parser import text_string_to_metric_families

TIMEOUT_S = 2.0

Labels = tuple[tuple[str, str], ...]
Samples = dict[tuple[str, Labels], float]


async def scrape(url: str) -> Samples | None:
    """Every sample by name and sorted labels; None where nobody answers, or what answers is no Prometheus text."""
    try:
        return parse(await asyncio.to_thread(_read, url))
    except (OSError, HTTPException, ValueError):
        return None


def parse(text: str) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def by_label(samples: Samples, name: str, label: str) -> dict[str, float]:
    """The values of `name` by one label, summed over the others."""
    values: dict[str, float] = {}
    for (sample, labels), value in samples.items():
        key = dict(labels).get(label)
        if sample == name and key is not None:
            values[key] = values.get(key, 0.0) + value
    return values


def total(samples: Samples, name: str) -> float | None:
    """The sum of `name` over its labels; None where it has no sample."""
    values = [value for (sample, _), value in samples.items() if sample == name]
    return sum(values) if values else None


def _read(url: str) -> str:
    with urllib.request.urlopen(url, timeout=TIMEOUT_S) as response:
        text: str = response.read().decode()
    return text
