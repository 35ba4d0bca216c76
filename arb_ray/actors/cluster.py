"""
The one module that talks to Ray: names, lifetimes, restarts, calls.

A plain class becomes an actor here and nowhere else. Every call that changes something is
idempotent under the id it carries, because Ray's errors are ambiguous: a call that failed
may have run. So a failed call is reported as ``OutcomeUnknown``, never as "nothing happened".
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import zlib
from collections.abc import Sequence
from typing import Any, Protocol, cast

import ray
from ray.exceptions import GetTimeoutError, RayActorError, RayError, RayTaskError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from arb_ray.actors.collector import start_collecting
from arb_ray.actors.hosting import Loops
from arb_ray.actors.ray_metrics import start_exporting
from arb_ray.actors.wire import pack, unpack
from arb_ray.domain.book import TickBatch
from arb_ray.domain.errors import ArbError, OutcomeUnknown
from arb_ray.domain.ledger import Balance
from arb_ray.domain.risk_intent import Mark, ReserveIntent, RiskStatus, Settlement, Verdict
from arb_ray.engine.topology import Role, WantedActor
from arb_ray.ports import MetricsSource

HEAD_RESOURCE = "node:__internal_head__"
"""Ray gives it to the head node, and to no other."""

SPREAD = frozenset({Role.HOST, Role.FEED})
"""Roles that are dealt out over all nodes: ticks go through them."""

STOP_TIMEOUT_S = 10.0
"""How long an actor may take to drain before Ray kills it; what it lost is in the journal."""


DELIVER_TIMEOUT_S = 1.5
"""A batch without an answer for so long counts as lost, and the newest books follow: a host
holds books that are three seconds old for stale. One that is only slow takes both, in order."""


class Links(Protocol):
    """How an actor reaches the others."""

    def sink(self, host_name: str) -> Any:
        """Return the tick sink of a strategy host."""
        ...

    def relay(self, host_name: str) -> Any:
        """Return the tick sink of a whole node, through one of its hosts."""
        ...

    async def call(self, name: str, method: str, *args: Any, timeout_s: float) -> Any:
        """Call a method of the actor ``name``."""
        ...

    async def metrics(self, name: str, timeout_s: float) -> bytes:
        """Return the metrics of the actor ``name`` in Prometheus' text format."""
        ...

    async def ping(self, name: str, timeout_s: float) -> bool:
        """Tell whether an actor's event loop answers in time."""
        ...

    def restart(self, name: str) -> None:
        """End an actor's process, frozen or not; it is started again."""
        ...


class ActorKit(Protocol):
    """Builds an actor's plain object from settings; travels to the actor's process."""

    def metrics(self, wanted: WantedActor) -> MetricsSource:
        """Return what the actor's process counts in."""
        ...

    def build(self, wanted: WantedActor, links: Links, metrics: MetricsSource) -> Any:
        """Return an object with ``start()`` and async methods, connected to nothing yet."""
        ...


class _Hosted:
    """A plain object that lives in this process from its birth to its death."""

    async def __init__(  # type: ignore[misc]  # Ray awaits an actor's constructor
        self, kit: ActorKit, wanted: WantedActor, namespace: str
    ) -> None:
        self._metrics = kit.metrics(wanted)
        self._inner = kit.build(wanted, RayLinks(namespace), self._metrics)
        self._inner.start()
        self._shell_loops = Loops()
        start_exporting(self._metrics, self._shell_loops)
        if wanted.role in SPREAD:
            start_collecting(self._metrics, self._shell_loops)

    async def call(self, method: str, *args: Any) -> Any:
        """Run one of the plain object's async methods."""
        answer = await getattr(self._inner, method)(*args)
        if method == "stop":
            await self._shell_loops.stop()
        return answer

    async def ping(self) -> str:
        """Prove that this process's event loop turns."""
        return "pong"

    async def metrics(self) -> bytes:
        """Return this process' metrics in Prometheus' text format."""
        pieces: list[bytes] = []
        for piece in self._metrics.pieces():
            pieces.append(piece)
            await asyncio.sleep(0)  # ticks do not wait for all of it
        return b"".join(pieces)


class SourceActor(_Hosted):
    """The embedded exchanges, simulated or recorded."""


class PersistenceActor(_Hosted):
    """Batches snapshots to PostgreSQL and state to Redis."""


class GatewayActor(_Hosted):
    """HTTP for people and probes."""


class FeedActor(_Hosted):
    """One venue's sockets and books."""


class StrategyHostActor(_Hosted):
    """The strategies of some symbols."""

    async def deliver(self, batch: bytes) -> int:
        """Take a batch of ticks; the answer is the host's birth stamp."""
        return int(await self._inner.deliver(batch))

    async def relay(self, batch: bytes) -> int:
        """Lay a batch where all hosts of this node see it."""
        return int(await self._inner.relay(batch))


class RiskGuardActor(_Hosted):
    """The one that says yes."""

    async def reserve(self, intent: bytes) -> bytes:
        """Answer an encoded intent with an encoded verdict."""
        return pack(await self._inner.reserve(unpack(intent, ReserveIntent)))

    async def settle(self, settlement: bytes) -> bool:
        """Settle an encoded outcome."""
        return bool(await self._inner.settle(unpack(settlement, Settlement)))

    async def free(self) -> bytes:
        """Return the encoded FREE balances."""
        return pack(list(await self._inner.free()))

    async def mark(self, host: str, marks: bytes) -> bytes:
        """Take encoded marks; answer with the encoded status."""
        return pack(await self._inner.mark(host, unpack(marks, list[Mark])))


class SupervisorActor(_Hosted):
    """Keeps what runs equal to what is wanted."""


_CLASSES: dict[Role, type[_Hosted]] = {
    Role.SOURCE: SourceActor,
    Role.PERSISTENCE: PersistenceActor,
    Role.RISK: RiskGuardActor,
    Role.HOST: StrategyHostActor,
    Role.FEED: FeedActor,
    Role.GATEWAY: GatewayActor,
}


class RaySink:
    """
    A strategy host's mailbox, or with ``is_relay`` that of its whole node; the caller keeps at
    most one call in flight.
    """

    def __init__(self, links: RayLinks, host_name: str, *, is_relay: bool = False) -> None:
        self._links = links
        self._host_name = host_name
        self._is_relay = is_relay

    async def deliver(self, batch: TickBatch) -> int:
        """Send a batch and wait until the host has it. Raises OutcomeUnknown."""
        handle = self._links.handle(self._host_name)
        method = handle.relay if self._is_relay else handle.deliver
        ref = method.remote(pack(batch))
        what = f"{self._host_name}.deliver"
        return int(await self._links.wait(ref, what, DELIVER_TIMEOUT_S))


class RayRisk:
    """RiskGuard as a strategy host calls it; implements ``RiskClient``."""

    def __init__(self, links: RayLinks, guard_name: str, timeout_s: float) -> None:
        self._links = links
        self._guard_name = guard_name
        self._timeout_s = timeout_s

    async def reserve(self, intent: ReserveIntent) -> Verdict:
        """Ask for room. Raises OutcomeUnknown when no answer came in time."""
        handle = self._links.handle(self._guard_name)
        ref = handle.reserve.remote(pack(intent))
        answer = await self._links.wait(ref, f"{self._guard_name}.reserve", self._timeout_s)
        return unpack(answer, Verdict)  # type: ignore[arg-type]

    async def settle(self, settlement: Settlement) -> None:
        """Post or void."""
        handle = self._links.handle(self._guard_name)
        ref = handle.settle.remote(pack(settlement))
        await self._links.wait(ref, f"{self._guard_name}.settle", self._timeout_s)

    async def mark(self, host: str, marks: Sequence[Mark]) -> RiskStatus:
        """Send marks; learn the guard's state."""
        handle = self._links.handle(self._guard_name)
        ref = handle.mark.remote(host, pack(list(marks)))
        answer = await self._links.wait(ref, f"{self._guard_name}.mark", self._timeout_s)
        return unpack(answer, RiskStatus)

    async def free(self) -> Sequence[Balance]:
        """Return every FREE balance."""
        handle = self._links.handle(self._guard_name)
        answer = await self._links.wait(
            handle.free.remote(), f"{self._guard_name}.free", self._timeout_s
        )
        return unpack(answer, list[Balance])


class RayLinks:
    """The other actors of a namespace, by name."""

    def __init__(self, namespace: str) -> None:
        self._namespace = namespace
        self._handles: dict[str, Any] = {}

    def sink(self, host_name: str) -> RaySink:
        """Return the tick sink of a strategy host."""
        return RaySink(self, host_name)

    def relay(self, host_name: str) -> RaySink:
        """Return the tick sink of a whole node, through one of its hosts."""
        return RaySink(self, host_name, is_relay=True)

    def handle(self, name: str) -> Any:
        """Return the handle of a named actor. Raises OutcomeUnknown when there is none."""
        if name not in self._handles:
            try:
                self._handles[name] = ray.get_actor(name, namespace=self._namespace)
            except ValueError as error:
                raise OutcomeUnknown(f"actor {name}: {error}", 0) from error
        return self._handles[name]

    async def ping(self, name: str, timeout_s: float) -> bool:
        """Tell whether an actor's event loop answers in time."""
        try:
            await self.wait(self.handle(name).ping.remote(), f"{name}.ping", timeout_s)
        except ArbError:
            return False
        return True

    def restart(self, name: str) -> None:
        """End an actor's process, frozen or not; Ray starts it again. Raises OutcomeUnknown."""
        ray.kill(self.handle(name), no_restart=False)

    def forget(self, name: str) -> None:
        """Drop a cached handle, because its actor is gone for good."""
        self._handles.pop(name, None)

    async def call(self, name: str, method: str, *args: Any, timeout_s: float) -> Any:
        """Call ``method`` of the plain object in actor ``name``."""
        ref = self.handle(name).call.options(name=method).remote(method, *args)
        return await self.wait(ref, f"{name}.{method}", timeout_s)

    async def metrics(self, name: str, timeout_s: float) -> bytes:
        """Return the metrics of the actor ``name`` in Prometheus' text format."""
        return bytes(
            await self.wait(self.handle(name).metrics.remote(), f"{name}.metrics", timeout_s)
        )

    async def wait(self, ref: Any, what: str, timeout_s: float) -> Any:
        """Await a call's result; a typed error of ours comes out as itself."""
        try:
            # Not wait_for: before Python 3.12 it can swallow the cancellation of a stop.
            async with asyncio.timeout(timeout_s):
                return await ref
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, ArbError):
                raise cause from error
            # A bug over there: its process logs it, and its caller must not fall with it.
            problem = f"{type(cause).__name__}: {_first_line(cause)}"
            raise OutcomeUnknown(f"{what}: {problem}", int(timeout_s * 1e3)) from error
        except RayActorError as error:
            self._handles.pop(what.split(".", 1)[0], None)
            raise OutcomeUnknown(f"{what}: {_first_line(error)}", int(timeout_s * 1e3)) from error
        except (TimeoutError, GetTimeoutError, RayError) as error:
            raise OutcomeUnknown(f"{what}: {_first_line(error)}", int(timeout_s * 1e3)) from error


class RayCluster:
    """Starts, finds and stops the actors of one environment."""

    def __init__(self, namespace: str, kit: ActorKit) -> None:
        self._namespace = namespace
        self._kit = kit
        self.links = RayLinks(namespace)

    def start(self, wanted: WantedActor) -> None:
        """Start an actor, or adopt the one that has its name."""
        self._create(_CLASSES[wanted.role], wanted.name, wanted)

    def start_supervisor(self, name: str, wanted: WantedActor) -> None:
        """Start the supervisor, or adopt the one that runs."""
        self._create(SupervisorActor, name, wanted)

    def _create(self, kind: type[_Hosted], name: str, wanted: WantedActor) -> None:
        options: dict[str, Any] = {
            **_place(wanted),
            "name": name,
            "namespace": self._namespace,
            "get_if_exists": True,
            # Detached, so that nobody shares the fate of whoever started it.
            "lifetime": "detached",
            "max_restarts": -1,
            "max_task_retries": 0,  # at most once: the caller repeats under the same id
            "num_cpus": 0,
            "max_concurrency": 1000,
            "enable_task_events": False,
        }
        ray.remote(kind).options(**options).remote(self._kit, wanted, self._namespace)

    def present(self) -> tuple[str, ...]:
        """Return the names of our actors that Ray knows."""
        return names_in(self._namespace)

    def end(self, name: str) -> None:
        """End an actor at once and for good; one that is not there is no problem."""
        with contextlib.suppress(ArbError, ValueError):
            ray.kill(self.links.handle(name), no_restart=True)
        self.links.forget(name)

    async def ping(self, name: str, timeout_s: float) -> bool:
        """Tell whether an actor's event loop answers in time."""
        return await self.links.ping(name, timeout_s)

    async def stop(self, name: str) -> None:
        """Drain by a method, end the process, and kill what is left (RAY.md, point 7)."""
        with contextlib.suppress(ArbError, RayTaskError):
            await self.links.call(name, "stop", timeout_s=STOP_TIMEOUT_S)
        self.end(name)


def names_in(namespace: str) -> tuple[str, ...]:
    """Return the names of the actors that Ray knows in a namespace."""
    names = ray.util.list_named_actors(all_namespaces=True)
    return tuple(
        str(entry["name"])
        for entry in cast("list[dict[str, str]]", names)
        if entry["namespace"] == namespace
    )


def _place(wanted: WantedActor) -> dict[str, Any]:
    """
    Return where an actor should live.

    Feeds and hosts are dealt out over the nodes, softly: they start elsewhere when theirs is
    lost. All others live on the head, whose loss ends the cluster anyway: Persistence has its
    spool there, the Gateway its address, and a lost worker then takes no singleton with it.
    """
    if wanted.role not in SPREAD:
        return {"resources": {HEAD_RESOURCE: 0.001}}
    known = ray.nodes()  # type: ignore[no-untyped-call]
    nodes = sorted(node["NodeID"] for node in known if node["Alive"])
    # A digest and not a counter: a supervisor that starts again deals as the one before did.
    at = (int(wanted.key) if wanted.key.isdecimal() else zlib.crc32(wanted.key.encode())) + 1
    strategy = NodeAffinitySchedulingStrategy(nodes[at % len(nodes)], soft=True)
    return {"scheduling_strategy": strategy}


def start_local(options: dict[str, Any]) -> None:
    """Start a Ray on this machine; it ends with ``disconnect``. Takes 5 to 15 s."""
    # Ray's logger prints to stderr by itself; here its lines belong to the process' log.
    ray_logger = logging.getLogger("ray")
    ray_logger.handlers.clear()
    ray_logger.propagate = True
    # "local" is said, because RAY_ADDRESS in the environment would win over no address.
    ray.init(address="local", log_to_driver=False, configure_logging=False, **options)


def connect(namespace: str) -> None:
    """Join the cluster that this node belongs to, as a job's driver does."""
    ray.init(address="auto", namespace=namespace, log_to_driver=False, configure_logging=False)


def disconnect() -> None:
    """Leave Ray; a local one ends, with every actor."""
    ray.shutdown()


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return text.splitlines()[0] if text else type(error).__name__


__all__ = [
    "ActorKit",
    "Links",
    "RayCluster",
    "RayLinks",
    "connect",
    "disconnect",
    "names_in",
    "start_local",
]
