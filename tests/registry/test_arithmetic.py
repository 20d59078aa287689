"""What is computed in where nothing is said: what the machine multiplies fast."""

import time
from collections.abc import Callable
from statistics import median

import pytest
import torch

from registry.arithmetic import computed_in


@pytest.mark.parametrize("name", ["bfloat16", "float32"])
def test_a_name_is_taken_at_its_word(name: str) -> None:
    assert str(computed_in(name)) == f"torch.{name}"


@pytest.mark.parametrize(
    ("capable", "expected"),
    [
        ({"avx2": True, "avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({"neon": True, "bf16": False}, torch.float32),
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True}, torch.bfloat16),
        ({"neon": True, "bf16": True}, torch.bfloat16),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_multiplies_it(
    monkeypatch: pytest.MonkeyPatch, capable: dict[str, bool], expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capable)
    assert computed_in("auto") == expected


@pytest.mark.parametrize(("emulated", "expected"), [(True, torch.float32), (False, torch.bfloat16)])
def test_on_a_gpu_an_emulation_does_not_count(
    monkeypatch: pytest.MonkeyPatch, emulated: bool, expected: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or not emulated
    )
    assert computed_in("auto") == expected


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about the CPU's instructions")
def test_auto_is_the_faster_one_on_this_machine() -> None:
    def product(dtype: torch.dtype) -> Callable[[], object]:
        x, weight = torch.randn(512, 576).to(dtype), torch.randn(1536, 576).to(dtype)
        return lambda: torch.nn.functional.linear(x, weight)

    products = {dtype: product(dtype) for dtype in (torch.bfloat16, torch.float32)}
    seconds: dict[torch.dtype, list[float]] = {dtype: [] for dtype in products}
    for _ in range(15):  # turn about: a noisy machine disturbs both
        for dtype, multiply in products.items():
            began = time.perf_counter()
            multiply()
            seconds[dtype].append(time.perf_counter() - began)
    assert median(seconds[computed_in("auto")]) < 1.2 * min(map(median, seconds.values()))
