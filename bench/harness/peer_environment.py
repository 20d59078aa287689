"""TRL in an environment of its own, which borrows everything large (torch, transformers, peft) from ours."""

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path

TRL = "trl==1.9.2"
"""The last release with PPO, in `trl.experimental.ppo`; it was removed afterwards."""


def peer_python(folder: Path) -> Path:
    """The interpreter of the environment in `folder`, which is made if it is not there.

    Raises:
        subprocess.CalledProcessError: TRL cannot be installed.
    """
    python = folder / "bin" / "python"
    if not (folder / "ready").exists():
        venv.create(folder, with_pip=True, clear=True)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
        # pip warns of what our other packages miss; they are not used there.
        subprocess.run([python, "-m", "pip", "install", "--quiet", TRL], check=True, stderr=subprocess.DEVNULL)
        subprocess.run([python, "-c", "import trl.experimental.ppo"], check=True)
        (folder / "ready").touch()
    return python


def main() -> None:
    print(peer_python(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
