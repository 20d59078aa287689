"""What learning costs, beside TRL: a PPO update, and a reward model from OpenAssistant's rankings.

A PPO update is all of it on either side: sampling the answers, reference logprobs, reward, values, one epoch of four
minibatches. Both start from the same model with the same LoRA on the same layers, compute in the same dtype (bfloat16,
or float32 on a machine without instructions for it), and learn from 32 distinct prompts with 32 tokens each. TRL keeps
a reward model and a critic of their own, each as large as the policy; ours share the trunk. The two take turns; the
rate is the median turn's. TRL lives in an environment of its own.
"""

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from harness.oasst_folds import fill_store, folds
from harness.peer_environment import peer_python
from harness.processes import BENCH, DEFAULT_MODEL, ROOT
from harness.report import Report, arguments
from harness.turns import Contestant
from transformers import AutoConfig, AutoTokenizer

from console.personas.prompts import TRAINING
from registry.arithmetic import computed_in
from settings.ppo import LoraSettings, PpoSettings

OURS, TRL = "Foldback", "TRL"
PROMPTS, TOKENS = 32, 32
LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


@contextmanager
def contestant(
    options: argparse.Namespace, python: Path, script: str, workload: dict[str, Any]
) -> Iterator[Contestant]:
    """A child at `bench/harness/script` with `workload` in a file."""
    folder = Path(tempfile.mkdtemp(prefix=script, dir=options.folder))
    dtype = str(computed_in("auto")).removeprefix("torch.")
    (folder / "workload.json").write_text(json.dumps({**workload, "threads": options.threads, "dtype": dtype}))
    environment = {
        **os.environ,
        "PYTHONPATH": f"{ROOT}{os.pathsep}{BENCH}",  # in this order: `trainer` is the package, not this script
        "OMP_NUM_THREADS": str(options.threads),
        "OMP_WAIT_POLICY": "PASSIVE",
        "HF_HUB_OFFLINE": "1",
    }
    command = [python, BENCH / "harness" / script, folder / "workload.json"]
    with Contestant(command, environment, folder / "log") as started:
        yield started


def ppo_workload(options: argparse.Namespace, distinct: int) -> dict[str, Any]:
    tokenizer = AutoTokenizer.from_pretrained(options.model)
    chats = [[{"role": "user", "content": question}] for question in TRAINING[:distinct]]
    asked = tokenizer.apply_chat_template(chats, add_generation_prompt=True, return_dict=True)["input_ids"]
    lora = LoraSettings(layers=0.5)
    depth = AutoConfig.from_pretrained(options.model).num_hidden_layers
    return {
        "model": str(options.model),
        "prompts": [prompt for prompt in asked for _ in range(PROMPTS // distinct)],
        "tokens": TOKENS,
        "temperature": 0.7,
        "minibatches": PpoSettings().minibatches,
        "learning_rate": 3e-5,
        "lora_share": lora.layers,
        "lora": {
            "r": lora.rank,
            "lora_alpha": lora.alpha,
            "target_modules": LINEAR,
            "layers_to_transform": list(range(depth // 2, depth)),
            "layers_pattern": "layers",
        },
    }


def bench_ppo(options: argparse.Namespace, said: Report) -> None:
    """Turn about: TRL, ours and, unless in a hurry, ours with four answers a prompt as the trainer draws them."""
    peer = peer_python(options.peer)
    ours = Path(sys.executable)
    contenders = {
        TRL: (peer, "ppo_trl.py", PROMPTS),
        OURS: (ours, "ppo_ours.py", PROMPTS),
    }
    if not options.quick:
        contenders[f"{OURS}, 4 answers a prompt"] = ours, "ppo_ours.py", PROMPTS // 4
    with ExitStack() as stack:
        started = {
            name: stack.enter_context(contestant(options, python, script, ppo_workload(options, distinct)))
            for name, (python, script, distinct) in contenders.items()
        }
        # Memory is touched and kernels are chosen, which is not measured: all at once.
        with ThreadPoolExecutor() as pool:
            for name, figures in zip(started, pool.map(Contestant.go, started.values()), strict=True):
                progress(f"PPO, warm-up, {name}", figures)
        turns: list[dict[str, dict[str, Any]]] = []
        for turn in range(options.updates):
            turns.append({})
            for name, each in started.items():
                turns[-1][name] = each.go()
                progress(f"PPO, update {turn + 1} of {options.updates}, {name}", turns[-1][name])
    rate = {name: median(turn[name]["tokens"] / turn[name]["seconds"] for turn in turns) for name in started}
    peak = {name: max(turn[name]["peak_gib"] for turn in turns) for name in started}
    for name in started:
        seconds, cpu_seconds = (median(turn[name][key] for turn in turns) for key in ("seconds", "cpu_seconds"))
        said.rows.append(
            {
                "what": "PPO",
                "by": name,
                "seconds": seconds,
                "CPU seconds": cpu_seconds,
                "tokens/s": rate[name],
                "peak GiB": peak[name],
            }
        )
    said.target("PPO: response tokens/s, of TRL's", rate[OURS] / rate[TRL], at_least=3.0)
    said.target("PPO: peak memory, of TRL's", peak[OURS] / peak[TRL], at_most=1.0)


def bench_reward(options: argparse.Namespace, said: Report) -> None:
    """Fold after fold, each contender on the same rankings of the same trees."""
    folder = Path(options.folder)
    judgements = fill_store(options.data, folder / "preferences.sqlite")
    limit = 8 if options.quick else None
    work = {
        "model": str(options.model),
        "store": str(folder / "preferences.sqlite"),
        "max_length": 1024,
        "seed": 0,
        "folds": folds(judgements, 5, pairs=limit)[: options.folds],
    }
    names: dict[str, list[dict[str, Any]]] = {TRL: [], OURS: [], f"{OURS}, thumbs too": []}
    with ExitStack() as stack:
        peer = stack.enter_context(contestant(options, peer_python(options.peer), "reward_trl.py", work))
        ours = stack.enter_context(contestant(options, Path(sys.executable), "reward_ours.py", work))
        for fold in range(options.folds):
            for name, each in zip(names, (peer, ours, ours), strict=True):
                names[name].append(each.go())
                progress(f"reward, fold {fold + 1} of {options.folds}, {name}", names[name][-1])
    accuracy: dict[str, float] = {}
    seconds: dict[str, float] = {}
    pairs = sum(fold["pairs"] for fold in names[OURS])
    for name, done in names.items():
        accuracy[name] = sum(fold["accuracy"] * fold["pairs"] for fold in done) / pairs
        seconds[name] = sum(fold["seconds"] for fold in done)
        said.rows.append(
            {"what": "reward", "by": name, "seconds": seconds[name], "accuracy": accuracy[name], "pairs": pairs}
        )
    floor = sum(fold["longer_wins"] * fold["pairs"] for fold in names[OURS]) / pairs
    said.rows.append({"what": "reward", "by": "longer wins", "accuracy": floor, "pairs": pairs})
    said.target("reward: seconds for the same rankings, of TRL's", seconds[OURS] / seconds[TRL], at_most=1.0)
    if not options.quick:  # on eight pairs accuracy is a coin
        said.target("reward: accuracy less TRL's", accuracy[OURS] - accuracy[TRL], at_least=0.0)
        said.target("reward: accuracy less longer-wins'", accuracy[f"{OURS}, thumbs too"] - floor, at_least=0.0)


def progress(what: str, figures: dict[str, Any]) -> None:
    shown = ", ".join(f"{key} {value:.3g}" for key, value in figures.items())
    print(f"{what}: {shown}", file=sys.stderr, flush=True)


def plot(said: Report, path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 4))
    for axis, (what, column) in zip(
        axes, (("PPO", "tokens/s"), ("PPO", "peak GiB"), ("reward", "accuracy")), strict=True
    ):
        rows = [row for row in said.rows if row["what"] == what]
        axis.barh([str(row["by"]) for row in rows], [float(row[column]) for row in rows])
        axis.set_title(f"{what}: {column}")
    figure.tight_layout()
    figure.savefig(path, dpi=150, bbox_inches="tight")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--data", type=Path, help="OpenAssistant trees (JSON lines); without it, PPO alone")
    parser.add_argument("--only", choices=("ppo", "reward"), help="one of the two parts")
    parser.add_argument("--updates", type=int, help="PPO updates of each, after one to warm up; default: 5, quick: 1")
    parser.add_argument("--folds", type=int, help="of five, by tree; default: 5, quick: 1")
    parser.add_argument("--threads", type=int, default=2, help="of each contender; only one works at a time")
    parser.add_argument("--peer", type=Path, default=ROOT / ".foldback/trl", help="where TRL's environment is made")
    options = parser.parse_args()
    if options.only == "reward" and not options.data:
        parser.error("--only reward: needs --data")
    if options.only and options.plot:
        parser.error("--plot: shows both parts; leave out --only")
    options.updates = options.updates or (1 if options.quick else 5)
    options.folds = options.folds or (1 if options.quick else 5)
    said = Report(f"{PROMPTS} answers of {TOKENS} tokens an update; accuracy on trees not learned from")
    with tempfile.TemporaryDirectory() as options.folder:
        if options.only != "reward":
            bench_ppo(options, said)
        if options.only != "ppo" and options.data:
            if options.json:
                said.write(options.json)  # what is measured is not lost with what is not
            bench_reward(options, said)
    said.finish(options)
    if options.plot:
        plot(said, options.plot)


if __name__ == "__main__":
    main()
