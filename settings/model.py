"""`model:` the base model that every policy version starts from."""

from pathlib import Path

from settings.section import Section


class ModelSettings(Section):
    name: str = "HuggingFaceTB/SmolLM2-135M-Instruct"
    """Any causal language model with a chat template: a directory, or a hub name."""
    dir: Path = Path(".foldback/models")
    """Where models named by hub name are kept; `make setup` fetches the default one there."""

    @property
    def path(self) -> str:
        """The directory of the model where it is on disk, else its hub name."""
        local = self.dir / Path(self.name).name
        return str(local) if local.is_dir() else self.name
