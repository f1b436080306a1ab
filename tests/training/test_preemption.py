"""Who decides that a run of several processes stops, how often it is asked, and who listens for the signal."""

import os
import signal
import threading

import jax

from jaxseg.training import preemption


def test_one_process_stops_when_it_was_asked():
    request = preemption.Request()
    assert not request.agreed()
    request.note(15, None)
    assert request.agreed()


def test_many_processes_stop_where_all_agree(monkeypatch):
    asked = []
    monkeypatch.setattr(preemption.jax, "process_count", lambda: 2)
    agree = lambda call: asked.append(call) or call == 3
    monkeypatch.setattr(preemption.multihost_utils, "reached_preemption_sync_point", agree)
    request = preemption.Request()
    request.note(15, None)  # of this one alone: the others have to come to the same call
    assert [request.agreed() for _ in range(3)] == [False, False, True]
    assert asked == [1, 2, 3]


def test_a_signal_is_noted_by_the_main_thread_of_a_single_process(monkeypatch):
    before = signal.getsignal(signal.SIGTERM)
    with preemption.listening() as request:
        os.kill(os.getpid(), signal.SIGTERM)
        assert request.agreed()
    assert signal.getsignal(signal.SIGTERM) == before
    found = []

    def elsewhere():
        with preemption.listening():
            found.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    monkeypatch.setattr(jax, "process_count", lambda: 2)  # where JAX listens
    elsewhere()
    assert found == [before, before]
