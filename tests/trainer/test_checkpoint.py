"""Checkpoints: whole or absent, found by listing, and exact."""

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from trainer.checkpoint import Checkpoints, Progress
from trainer.statefile import load_state, save_state


def write_something(directory: Path) -> None:
    (directory / "weights").mkdir()
    (directory / "weights" / "file.txt").write_text("content")


def test_nothing_is_latest_before_the_first(tmp_path: Path) -> None:
    assert Checkpoints(tmp_path / "checkpoints").latest() is None


def test_the_latest_comes_back_whole(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(Progress(iteration=1, budget=0.1), write_something)
    saved = checkpoints.save(Progress(iteration=2, budget=1 / 3, version="p000001-aaaaaaaa"), write_something)
    found = Checkpoints(tmp_path).latest()
    assert found == saved
    assert found is not None
    assert (checkpoints.path(found.serial) / "weights" / "file.txt").read_text() == "content"


def test_a_write_that_dies_leaves_the_one_before(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    before = checkpoints.save(Progress(iteration=1), write_something)

    def die(directory: Path) -> None:
        write_something(directory)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checkpoints.save(Progress(iteration=2), die)
    again = Checkpoints(tmp_path)
    assert again.latest() == before
    assert [path.name for path in tmp_path.iterdir()] == [checkpoints.path(before.serial).name]


def test_the_last_two_and_the_anchor_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, keep=2)
    progress = checkpoints.save(Progress(), write_something, anchor=True)
    anchor = progress.serial
    for _ in range(4):
        progress = checkpoints.save(progress, write_something)
    assert progress.anchor == anchor
    kept = sorted(tmp_path.iterdir())
    assert kept == [checkpoints.path(serial) for serial in (anchor, progress.serial - 1, progress.serial)]


scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5)
tensors = st.lists(st.floats(width=32, allow_nan=True), max_size=4).map(torch.tensor)
trees = st.recursive(
    scalars | tensors,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(st.integers(0, 9) | st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(tree=trees)
def test_any_state_comes_back_bit_for_bit(tmp_path_factory: pytest.TempPathFactory, tree: object) -> None:
    directory = tmp_path_factory.mktemp("state")
    save_state(tree, directory, "state")
    assert same(load_state(directory, "state"), tree)


def same(left: object, right: object) -> bool:
    if type(left) is not type(right):
        return False
    match left, right:
        case torch.Tensor(), torch.Tensor():
            return left.dtype == right.dtype and torch.equal(
                left.view(torch.uint8) if left.numel() else left, right.view(torch.uint8) if right.numel() else right
            )
        case dict(), dict():
            return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
        case ((list() | tuple()), (list() | tuple())):
            return len(left) == len(right) and all(map(same, left, right))
        case float(), float():
            return left == right and math.copysign(1, left) == math.copysign(1, right)
        case _:
            return left == right


def test_adam_goes_on_from_disk_as_if_it_had_never_stopped(tmp_path: Path) -> None:
    def steps(weight: torch.nn.Parameter, adam: torch.optim.Adam, first: int, last: int) -> None:
        for step in range(first, last):
            adam.zero_grad()
            ((weight - step) ** 2).sum().backward()
            adam.step()

    straight = torch.nn.Parameter(torch.ones(3))
    optimiser = torch.optim.Adam([straight], lr=0.1)
    steps(straight, optimiser, 0, 3)
    resumed = torch.nn.Parameter(straight.detach().clone())
    save_state(optimiser.state_dict(), tmp_path, "adam")
    second = torch.optim.Adam([resumed], lr=0.5)
    second.load_state_dict(load_state(tmp_path, "adam"))
    steps(straight, optimiser, 3, 6)
    steps(resumed, second, 3, 6)
    assert torch.equal(straight, resumed)


def test_a_state_that_json_cannot_hold_is_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.inner\.0 is a set"):
        save_state({"inner": [set()]}, tmp_path, "state")
