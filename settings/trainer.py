"""`trainer:` learning from feedback while serving goes on."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from settings.canary import CanarySettings
from settings.client import ClientSettings
from settings.cores import cores
from settings.gate import GateSettings
from settings.ppo import LoraSettings, PpoSettings
from settings.reward import RewardSettings
from settings.section import Section


class TrainerSettings(Section):
    server_admin_address: str = "127.0.0.1:50052"
    """RolloutService of the serving fleet, `host:port`."""
    server_access: ClientSettings = Field(default_factory=ClientSettings)
    """Credentials for RolloutService."""
    metrics_host: str = "127.0.0.1"
    """Address that the metrics port binds."""
    metrics_port: int = Field(default=9465, ge=0, le=65535)
    """Prometheus text. 0 picks a free port."""
    torch_threads: int = Field(default=0, ge=0)
    """Threads of the trainer's arithmetic. 0: two, or one where there are fewer than four cores, which it shares with
    the server: of two threads that wait for each other one would mostly be giving way."""
    niceness: int = Field(default=5, ge=0, le=19)
    """How far the trainer steps back where it shares a machine with the server."""
    dtype: Literal["auto", "bfloat16", "float32"] = "auto"
    """What the frozen base computes in; adapters, heads and losses are float32. auto: as the server's."""
    seed: int = Field(default=0, ge=0)
    """With it, every draw of the trainer is repeatable."""
    poll_interval_s: float = Field(default=1.0, gt=0)
    """How often to look for feedback, or for an operator's word, when there is nothing to do."""

    judgements_to_start: int = Field(default=24, ge=1)
    """Judgements before the reward model is fitted for the first time."""
    judgements_per_update: int = Field(default=16, ge=1)
    """New judgements before it is updated again."""
    calibration_samples: int = Field(default=32, ge=2)
    """Samples of the reference policy by which the reward is scaled: they score 0 ± 1."""

    iterations_per_judgement: float = Field(default=0.5, gt=0)
    """PPO iterations that a new judgement allows. When they are used up, training waits for people."""
    prompts_per_iteration: int = Field(default=8, ge=1, le=1024)
    """Prompts of one PPO iteration, drawn from those that users sent lately."""
    samples_per_prompt: int = Field(default=4, ge=1, le=64)
    """Answers to each of them."""
    max_new_tokens: int = Field(default=48, ge=1)
    """Tokens of a rollout, at most."""
    temperature: float = Field(default=0.7, gt=0, le=2)
    """Of rollouts and of the gate's answers."""
    rollouts_from: Literal["fleet", "trainer"] = "trainer"
    """trainer: its own decoder draws them, every one by the very policy that is trained, and servers are left to users.
    fleet: the servers do, while the trainer learns from the last: where they sample much faster than it does."""
    rollout_timeout_s: float = Field(default=300.0, gt=0)
    """For the rollouts of one iteration; then they are asked for again."""
    recent_prompts: int = Field(default=512, ge=1)
    """How many of the latest distinct prompts are trained on."""
    max_prompt_tokens: int = Field(default=512, ge=1)
    """Longer prompts are left out."""
    held_out_fraction: float = Field(default=0.15, gt=0, lt=1)
    """Share of conversations that only judge: the gate's prompts and the reward model's held-out judgements."""

    publish_every: int = Field(default=3, ge=1)
    """PPO iterations before a candidate goes to the gate; with rollouts_from fleet at most one more than
    ppo.max_staleness."""
    canary_prompts: int = Field(default=4, ge=1)
    """Completions with expected logprobs that a version carries, for servers to check that they serve it."""
    checkpoints: int = Field(default=2, ge=1)
    """Latest checkpoints that are kept."""

    rules_file: Path = Path("rules.yaml")
    """The constitution, looked for beside foldback.yaml. Without a file of the default name there are no rules; a file
    named here must exist."""

    lora: LoraSettings = Field(default_factory=LoraSettings)
    ppo: PpoSettings = Field(default_factory=PpoSettings)
    reward: RewardSettings = Field(default_factory=RewardSettings)
    gate: GateSettings = Field(default_factory=GateSettings)
    canary: CanarySettings = Field(default_factory=CanarySettings)

    @property
    def threads(self) -> int:
        """`torch_threads`, counted out."""
        return self.torch_threads or (2 if cores() >= 4 else 1)

    @model_validator(mode="after")
    def _rollouts_stay_fresh(self) -> Self:
        if self.rollouts_from == "fleet" and self.publish_every > self.ppo.max_staleness + 1:
            raise ValueError(
                f"publish_every={self.publish_every}: the fleet's rollouts come from the published version, so at most "
                f"ppo.max_staleness + 1 = {self.ppo.max_staleness + 1}; raise ppo.max_staleness, publish sooner or "
                "set rollouts_from=trainer"
            )
        return self
