"""PolicyService: the registry's life cycle, as gRPC (admin port)."""

import asyncio
from collections.abc import AsyncGenerator

from foldback.v1 import policy_pb2, policy_pb2_grpc
from registry import ArtifactError, IllegalTransition, PolicyState, Registry, RegistryState
from registry.lifecycle import TrainingState
from registry.message import STATES, transition_message
from server.admission import Admission
from server.interceptor import Context
from server.status import Refused, invalid, not_found, precondition
from server.swap import SwapController
from server.versions import Refusal

ACTOR = "operator"
DEFAULT_PAGE, MAX_PAGE = 50, 500
TRAINING: dict[TrainingState, policy_pb2.TrainingState.ValueType] = {
    "running": policy_pb2.TRAINING_STATE_RUNNING,
    "paused": policy_pb2.TRAINING_STATE_PAUSED,
}


class PolicyService(policy_pb2_grpc.PolicyServiceServicer):
    def __init__(self, registry: Registry, swap: SwapController, admission: Admission, poll_interval_s: float) -> None:
        self._registry = registry
        self._swap = swap
        self._admission = admission
        self._poll_interval_s = poll_interval_s

    async def ListPolicies(  # noqa: N802
        self, request: policy_pb2.ListPoliciesRequest, context: Context
    ) -> policy_pb2.ListPoliciesResponse:
        if request.page_size < 0:
            raise invalid([("page_size", f"{request.page_size} is negative; 0 takes {DEFAULT_PAGE}")])
        state = await asyncio.to_thread(self._registry.state)
        newest_first = list(state.states)[::-1]
        if request.page_token and request.page_token not in newest_first:
            raise invalid([("page_token", "is not one of ours; pass next_page_token back as it was received")])
        # The token names the last version of the page before, so that new versions do not shift the pages.
        start = newest_first.index(request.page_token) + 1 if request.page_token else 0
        size = min(request.page_size or DEFAULT_PAGE, MAX_PAGE)
        page = newest_first[start : start + size]
        policies = await asyncio.to_thread(lambda: [self._policy(version, state) for version in page])
        return policy_pb2.ListPoliciesResponse(
            policies=policies,
            next_page_token=page[-1] if start + size < len(newest_first) else "",
            serving_version=self._swap.serving_version,
            canary_version=self._swap.canary_version,
            training_state=TRAINING[state.training_state],
        )

    async def GetPolicy(  # noqa: N802
        self, request: policy_pb2.GetPolicyRequest, context: Context
    ) -> policy_pb2.GetPolicyResponse:
        return policy_pb2.GetPolicyResponse(policy=await self._get(request.version))

    async def WatchPolicies(  # noqa: N802
        self, request: policy_pb2.WatchPoliciesRequest, context: Context
    ) -> AsyncGenerator[policy_pb2.WatchPoliciesResponse, None]:
        after = request.after_sequence
        while True:
            for transition in await asyncio.to_thread(self._registry.transitions, after):
                yield policy_pb2.WatchPoliciesResponse(transition=transition_message(transition))
                after = transition.sequence
            self._admission.check()
            await asyncio.sleep(self._poll_interval_s)

    async def PromotePolicy(  # noqa: N802
        self, request: policy_pb2.PromotePolicyRequest, context: Context
    ) -> policy_pb2.PromotePolicyResponse:
        await self._get(request.version)
        reason = request.reason or "promoted by an operator"
        try:
            await asyncio.to_thread(
                self._registry.transition, request.version, PolicyState.ACTIVE, reason=reason, actor=ACTOR
            )
        except (IllegalTransition, ArtifactError) as error:
            raise _not_possible(error) from error
        await self._served(request.version)
        return policy_pb2.PromotePolicyResponse(policy=await self._get(request.version))

    async def RollbackPolicy(  # noqa: N802
        self, request: policy_pb2.RollbackPolicyRequest, context: Context
    ) -> policy_pb2.RollbackPolicyResponse:
        if request.to_version:
            await self._get(request.to_version)
        reason = request.reason or "rolled back by an operator"
        try:
            active = await asyncio.to_thread(
                self._registry.rollback, request.to_version or None, reason=reason, actor=ACTOR
            )
        except (IllegalTransition, ArtifactError) as error:
            raise _not_possible(error) from error
        await self._served(active)
        return policy_pb2.RollbackPolicyResponse(policy=await self._get(active))

    async def SetTrainingState(  # noqa: N802
        self, request: policy_pb2.SetTrainingStateRequest, context: Context
    ) -> policy_pb2.SetTrainingStateResponse:
        names = {number: name for name, number in TRAINING.items()}
        if request.state not in names:
            raise invalid([("state", "is unknown; use TRAINING_STATE_RUNNING or TRAINING_STATE_PAUSED")])
        reason = request.reason or "set by an operator"
        await asyncio.to_thread(self._registry.set_training_state, names[request.state], reason=reason, actor=ACTOR)
        return policy_pb2.SetTrainingStateResponse(state=request.state)

    async def _get(self, version: str) -> policy_pb2.Policy:
        state = await asyncio.to_thread(self._registry.state)
        if version not in state.states:
            raise not_found(f"version={version!r}: not in the registry; ListPolicies names those that are", "NO_POLICY")
        return await asyncio.to_thread(self._policy, version, state)

    def _policy(self, version: str, state: RegistryState) -> policy_pb2.Policy:
        """A collected version keeps its place in the life cycle, without the rest of its manifest."""
        policy = policy_pb2.Policy(
            version=version, state=STATES[state.states[version]], reason=state.reasons.get(version, "")
        )
        try:
            manifest = self._registry.manifest(version)
        except ArtifactError:
            return policy
        policy.parent, policy.base, policy.step = manifest.parent, manifest.base, manifest.step
        policy.figures.update(manifest.figures)
        policy.create_time.FromDatetime(manifest.create_time)
        return policy

    async def _served(self, version: str) -> None:
        try:
            await self._swap.until_served(version)
        except Refusal as error:
            raise precondition(f"{version} is not served: {error}", "POLICY_REFUSED") from error


def _not_possible(error: Exception) -> Refused:
    reason = "ILLEGAL_TRANSITION" if isinstance(error, IllegalTransition) else "ARTIFACT_UNUSABLE"
    return precondition(str(error), reason)
