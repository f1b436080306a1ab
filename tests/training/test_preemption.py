"""Who decides that a run of several processes stops, and how often it is asked."""

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
