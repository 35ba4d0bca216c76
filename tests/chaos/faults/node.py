"""A worker node dies: its raylet and everything that it had started, at once."""

from __future__ import annotations

import contextlib

import psutil

from tests.chaos.faults.broken import Broken, NotHere


def begin(world, planned) -> Broken:
    """Kill the worker node with the most actors on it; the heal starts another one."""
    actors = {pid for pid, _ in world.actors().values()}
    nodes = [(_family(worker.pid), worker) for worker in world.hosts.workers]
    nodes = [(family, worker) for family, worker in nodes if family]
    if not nodes:
        raise NotHere("there is no worker node")
    family, worker = max(nodes, key=lambda one: len({p.pid for p in one[0]} & actors))
    victims = {process.pid for process in family} & actors
    if not victims:
        # What came back after a loss gets no actors until something is started anew.
        raise NotHere("no actor lives on a worker node now")
    for process in family:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    worker.wait(20)
    world.hosts.workers.remove(worker)

    def is_replaced():
        now = world.actors()
        return not victims & {pid for pid, _ in now.values()}

    return Broken(heal=world.hosts.add_worker, is_replaced=is_replaced)


def _family(pid: int) -> list[psutil.Process]:
    try:
        head = psutil.Process(pid)
        if head.status() == psutil.STATUS_ZOMBIE:
            return []
        return [*head.children(recursive=True), head]
    except psutil.NoSuchProcess:
        return []
