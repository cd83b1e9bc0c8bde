"""The queue: order, fairness, batches."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from nightglass.model import Night
from nightglass.watch.dispatch import Dispatch, ReadyItem

TONIGHT, YESTERDAY = Night("20260821"), Night("20260820")


def item(name: str, *, started: float = 0.0, ready: float = 0.0, calibration: bool = False, **other) -> ReadyItem:
    values = {"camera": "lynx", "night": TONIGHT} | other
    return ReadyItem(group_id=name, started_at=started, ready_at=ready, calibration=calibration, **values)


def drain(queue: Dispatch, now: float = 0.0) -> list[str]:
    taken = []
    while batch := queue.take(now):
        taken += [each.group_id for each in batch]
    return taken


def test_newest_science_first_but_calibrations_before_it() -> None:
    queue = Dispatch(batch_limit=1, slots=1)
    for each in (item("old", started=1), item("new", started=9), item("bias", started=0, calibration=True)):
        queue.add(each)
    assert drain(queue) == ["bias", "new", "old"]


def test_tonight_goes_before_older_nights() -> None:
    queue = Dispatch(batch_limit=1, slots=1)
    queue.add(item("late", started=99, night=YESTERDAY, calibration=True))
    queue.add(item("now", started=1))
    assert drain(queue) == ["now", "late"]


def test_cameras_of_a_night_take_turns() -> None:
    queue = Dispatch(batch_limit=1, slots=1)
    for number in range(3):
        queue.add(item(f"g{number}", started=number, camera="guide"))
        queue.add(item(f"s{number}", started=number, camera="spec"))
    assert [name[0] for name in drain(queue)] == ["g", "s"] * 3


def test_batches_grow_with_the_backlog_up_to_the_limit_and_never_mix_nights() -> None:
    queue = Dispatch(batch_limit=16, slots=2)
    for number in range(100):
        queue.add(item(f"a{number}", started=number))
    queue.add(item("other", night=YESTERDAY))
    sizes = []
    while batch := queue.take(0.0):
        assert len({(each.camera, each.night) for each in batch}) == 1
        sizes.append(len(batch))
    assert sizes[0] == 16
    assert sizes[-2:] == [5, 1]
    assert sum(sizes) == 101
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)


def test_a_few_for_as_many_slots_go_alone_and_a_few_more_go_together() -> None:
    for count, sizes in ((1, [1]), (2, [1, 1]), (3, [3]), (5, [5]), (6, [3, 3]), (7, [4, 3])):
        queue = Dispatch(batch_limit=16, slots=2)
        for number in range(count):
            queue.add(item(f"a{number}", started=number))
        assert [len(batch) for batch in iter(lambda: queue.take(0.0), ())] == sizes  # noqa: B023 - consumed at once


def test_a_held_queue_gives_only_calibrations() -> None:
    queue = Dispatch(batch_limit=4, slots=1)
    queue.hold()
    queue.add(item("science"))
    queue.add(item("flat", calibration=True))
    assert drain(queue) == ["flat"]
    assert queue.waiting("lynx", TONIGHT) == 1
    queue.release()
    assert drain(queue) == ["science"]
    assert queue.oldest() is None


def test_a_group_queued_again_is_there_once() -> None:
    queue = Dispatch(batch_limit=4, slots=1)
    queue.add(item("a", ready=1))
    queue.add(item("a", ready=5))
    assert (len(queue), queue.oldest()) == (1, 5)
    queue.remove("a")
    queue.remove("a")
    assert drain(queue) == []


@given(st.integers(1, 30))
def test_nothing_starves_under_a_stream_of_newer_exposures(rank: int) -> None:
    """However fast new ones come, the r-th oldest is out after 4 r batches."""
    queue = Dispatch(batch_limit=1, slots=1, ageing_s=60)
    for number in range(rank):
        queue.add(item(f"old{number}", started=-number, ready=number / 1000))
    last, served = f"old{rank - 1}", 0
    while last in queue:
        queue.add(item(f"new{served}", started=1000.0 + served, ready=100.0 + served))
        queue.take(100.0 + served)
        served += 1
    assert served <= 4 * rank


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.integers(0, 9), st.floats(0, 100), st.booleans()),
            st.tuples(st.just("take"), st.integers(0, 200)),
            st.tuples(st.just("remove"), st.integers(0, 9)),
        ),
        max_size=60,
    )
)
def test_every_group_comes_out_once_or_was_removed(actions) -> None:
    queue, inside = Dispatch(batch_limit=3, slots=1, ageing_s=10), set()
    for action in actions:
        if action[0] == "add":
            queue.add(item(str(action[1]), started=action[2], ready=action[2], calibration=action[3]))
            inside.add(str(action[1]))
        elif action[0] == "remove":
            queue.remove(str(action[1]))
            inside.discard(str(action[1]))
        else:
            for taken in queue.take(float(action[1])):
                inside.remove(taken.group_id)
        assert len(queue) == len(inside)
        assert all(name in queue for name in inside)
    assert sorted(drain(queue)) == sorted(inside)
