"""Unit tests run without Ray and without sockets; this file makes sure."""

import socket

import pytest
import ray


@pytest.fixture(autouse=True)
def no_outside_world(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("unit tests must not start Ray or open sockets")

    monkeypatch.setattr(ray, "init", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
