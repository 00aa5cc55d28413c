"""Whoever runs the command on data of their own may be offline."""

from __future__ import annotations

import socket

import pytest

from tests.cli.invoking import ONNX, Invoke, Place


@pytest.mark.slow
def test_a_run_opens_no_connection(copied: Place, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **_: object) -> None:
        raise AssertionError(f"a connection to {arguments[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    code, printed = invoke("pipeline", *ONNX, "--run-dir", "run", "--config", "dynamic_int8")
    assert code == 0, printed
