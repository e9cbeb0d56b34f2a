import threading

import pytest
from live import until

from tlog.errors import BusyError
from tlog.places import Places
from tlog.turns import Turns


def test_turns_are_handed_on_in_the_order_in_which_they_were_asked_for() -> None:
    turns, served = Turns(1), list[int]()

    def work(place: int) -> None:
        with turns.take():
            served.append(place)

    with turns.take():
        threads = []
        for place in range(8):
            threads.append(threading.Thread(target=work, args=(place,)))
            threads[-1].start()
            until(lambda: len(turns._queue) == len(threads), "the thread to stand in line")
        assert served == []
    for thread in threads:
        thread.join(10)
    assert served == list(range(8))


def test_no_more_are_at_work_than_there_are_turns() -> None:
    turns, at_work, most = Turns(3), list[int](), list[int]()

    def work(place: int) -> None:
        for _ in range(200):
            with turns.take():
                at_work.append(place)
                most.append(len(at_work))
                at_work.remove(place)

    threads = [threading.Thread(target=work, args=(place,)) for place in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(most) == 12 * 200
    assert max(most) <= 3


def test_who_leaves_a_turn_comes_back_to_it_after_the_others() -> None:
    turns, served = Turns(1), list[str]()

    def other() -> None:
        with turns.take():
            served.append("other")

    with turns.take():
        thread = threading.Thread(target=other)
        thread.start()
        until(lambda: len(turns._queue) == 1, "the thread to stand in line")
        with turns.leave():
            thread.join(10)
            served.append("waited")
        assert turns._free == 0
    assert served == ["other", "waited"]


def test_a_failure_gives_its_turn_back() -> None:
    turns = Turns(1)
    for _ in range(3):
        try:
            with turns.take():
                raise ValueError
        except ValueError:
            pass
    with turns.take():
        pass


def test_who_finds_no_place_is_refused_and_a_failure_gives_its_place_back() -> None:
    places = Places(1)
    with places.take(), pytest.raises(BusyError), places.take():
        raise AssertionError("there is one place only")
    for _ in range(3):
        with pytest.raises(ValueError, match="of the action"), places.take():
            raise ValueError("of the action")


def test_who_is_patient_has_the_place_of_who_leaves() -> None:
    places, taken = Places(1, 60), threading.Event()

    def work() -> None:
        with places.take():
            taken.set()

    thread = threading.Thread(target=work)
    with places.take():
        thread.start()
        assert not taken.wait(0.1)
    assert taken.wait(10)
    thread.join(10)


def test_who_waits_too_long_for_a_turn_is_told_so_and_takes_it_from_nobody() -> None:
    turns = Turns(1, 0.01)
    with turns.take(), pytest.raises(BusyError, match="nothing was logged, retry later"), turns.take():
        pass
    # Had the turn gone to who had given up, it would be gone.
    for _ in range(2):
        with turns.take():
            pass
