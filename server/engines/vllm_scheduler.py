"""Who gets a seat in vLLM's batch first, and the seat that is kept for checks of versions.

vLLM's priorities order those who wait, but take no seat from a running request. Under a full house a new version's
check would wait until a user's answer has ended, and the version with it. So the batch has one seat more than users and
rollouts may fill: a check takes it at the next token, and nobody makes room.

vLLM warns at its start that custom schedulers have no stable interface. All that these rely on: `schedule` admits as
many as `max_num_active_reqs` says, from the head of `waiting`.
"""

from vllm.config.scheduler import SchedulerConfig
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler

CHECK, USER, BACKGROUND = -1, 0, 1
"""vLLM's priorities: the lower goes first."""


class CheckedScheduler(Scheduler):  # type: ignore[misc] # untyped here
    """Users and rollouts fill `max_num_active_seqs` of the configuration; `max_num_seqs` is one more."""

    def schedule(self, throttle_prefills: bool = False) -> SchedulerOutput:
        self.max_num_active_reqs = self.scheduler_config.max_num_active_seqs + self._has_check()
        return super().schedule(throttle_prefills)

    def _has_check(self) -> bool:
        """One waits, then at the head, or is being answered."""
        waits = bool(self.waiting) and self.waiting.peek_request().priority == CHECK
        return waits or any(request.priority == CHECK for request in self.running)


class AsyncCheckedScheduler(CheckedScheduler, AsyncScheduler):  # type: ignore[misc] # untyped here
    """The same where vLLM plans a step while the last one is computed: on GPUs."""


def keep_check_seat(config: SchedulerConfig) -> None:
    """`config` is complete: vLLM has decided how it schedules."""
    config.scheduler_cls = AsyncCheckedScheduler if config.async_scheduling else CheckedScheduler
