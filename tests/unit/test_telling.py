"""What is said of a registration where no terminal shows a bar: what changes, and something every half a minute."""

import pytest
from plugin_registry_client.command.telling import SAID_EVERY_S, Teller
from plugin_registry_client.results import Registration

PROBLEM = {"cause": "status-503", "detail": "It answered 503."}


def seen(status: str, attempts: int = 0, problem: object = None) -> Registration:
    known = {"id": "registration-1", "name": "nginx", "version": "1.0.0", "status": status, "attempts": attempts}
    known |= {"problem": problem, "bytesDownloaded": 2**20, "artifactBytes": 2**21, "nextAttemptAt": "soon"}
    return Registration(known)


def test_each_change_is_said_once_and_nothing_is_silent_for_long(capsys: pytest.CaptureFixture[str]) -> None:
    moment = [0.0]
    teller = Teller(clock=lambda: moment[0])

    def said(registration: Registration, after_s: float = 1) -> str:
        moment[0] += after_s
        teller.tell(registration)
        out, err = capsys.readouterr()
        assert out == ""
        return err

    assert said(seen("queued")) == "nginx 1.0.0 is accepted as registration-1; now queued.\n"
    assert said(seen("queued")) == ""
    assert said(seen("verifying", 1)) == "nginx 1.0.0 is verifying (attempt 1).\n"
    assert said(seen("verifying", 1), SAID_EVERY_S - 1) == ""
    assert said(seen("verifying", 1)) == "nginx 1.0.0 is still verifying, 1.0 of 2.0 MiB.\n"
    failed = "Attempt 1 at nginx 1.0.0 failed (status-503): It answered 503. The next begins at soon.\n"
    assert said(seen("queued", 1, PROBLEM)) == failed
    assert said(seen("registered", 2)) == "nginx 1.0.0 is registered.\n"
    quiet = Teller(quiet=True)
    quiet.tell(seen("queued"))
    assert capsys.readouterr().err == ""
