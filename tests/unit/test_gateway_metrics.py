"""One page of every actor's values: who does not answer is counted and spoils nothing."""

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from arb_ray.actors import gateway_metrics
from arb_ray.actors.gateway_metrics import MetricsPage
from arb_ray.adapters.telemetry.metrics import PrometheusMetrics
from arb_ray.domain.errors import OutcomeUnknown
from arb_ray.engine.topology import Role

HOSTS = ("host:000@v", "host:001@v")
GATEWAY = "gateway:main@v"


class World:
    """Actors with metrics of their own, and a page over them."""

    def __init__(self):
        self.actors = {name: PrometheusMetrics(Role.HOST, name[5:8]) for name in HOSTS}
        self.actors["supervisor"] = PrometheusMetrics(Role.SUPERVISOR, "main")
        self.own = PrometheusMetrics(Role.GATEWAY, "main")
        self.names = [*HOSTS, GATEWAY]
        self.asked = []
        self.page = MetricsPage(
            own=self.own,
            own_name=GATEWAY,
            names=self.who,
            ask=self.ask,
            supervisor="supervisor",
        )

    async def who(self):
        if self.names is None:
            raise OutcomeUnknown("supervisor.status", 2000)
        return self.names

    async def ask(self, name):
        self.asked.append(name)
        told = self.actors[name]
        if isinstance(told, Exception):
            raise told
        return told if isinstance(told, bytes) else told.exposition()

    async def values(self):
        text = (await self.page.page()).decode()
        self.heads = [line for line in text.splitlines() if line.startswith("# TYPE")]
        return {
            (sample.name, sample.labels["actor"], sample.labels.get("role", "")): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


@pytest.fixture
def world(monkeypatch):
    monkeypatch.setattr(gateway_metrics, "PAGE_AGE_MAX_S", -1.0)  # each page is a new one
    return World()


async def test_all_values_are_there_told_apart_by_their_actor(world):
    for count, name in enumerate(HOSTS, start=1):
        world.actors[name].inc("decisions", count)
        world.actors[name].observe("reserve_ms", 7.0)
    world.actors["supervisor"].set("actors_alive", 3)
    values = await world.values()
    assert values[("arb_decisions_total", "host:000", "")] == 1
    assert values[("arb_decisions_total", "host:001", "")] == 2
    assert values[("arb_reserve_ms_count", "host:001", "")] == 1
    assert values[("arb_actors_alive", "supervisor:main", "")] == 3
    assert values[("arb_metrics_unanswered_total", "gateway:main", "host")] == 0
    assert len(set(world.heads)) == len(world.heads), "a family has one heading"
    assert "# TYPE arb_decisions_total counter" in world.heads
    assert world.asked == [*HOSTS, "supervisor"], "the gateway need not ask itself"


@pytest.mark.parametrize("answer", [OutcomeUnknown("host.metrics", 2000), b"arb_x{ 1\n"])
async def test_who_does_not_answer_is_counted_and_the_rest_is_there(world, answer):
    sound, world.actors[HOSTS[0]] = world.actors[HOSTS[0]], answer
    values = await world.values()
    assert values[("arb_metrics_unanswered_total", "gateway:main", "host")] == 1
    assert ("arb_decisions_total", "host:000", "") not in values
    assert ("arb_decisions_total", "host:001", "") in values
    world.actors[HOSTS[0]] = sound
    values = await world.values()
    assert values[("arb_metrics_unanswered_total", "gateway:main", "host")] == 1
    assert ("arb_decisions_total", "host:000", "") in values


async def test_without_the_supervisor_the_actors_known_last_are_asked(world):
    await world.values()
    world.names = None
    world.actors["supervisor"] = OutcomeUnknown("supervisor.metrics", 2000)
    values = await world.values()
    assert values[("arb_metrics_unanswered_total", "gateway:main", "supervisor")] == 1
    assert ("arb_decisions_total", "host:000", "") in values


async def test_a_crowd_of_scrapers_costs_the_actors_one_call_each(world, monkeypatch):
    monkeypatch.setattr(gateway_metrics, "PAGE_AGE_MAX_S", 60.0)
    pages = await asyncio.gather(*(world.page.page() for _ in range(10)))
    assert len(set(pages)) == 1
    assert world.asked == [*HOSTS, "supervisor"]
