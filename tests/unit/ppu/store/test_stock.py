"""Stock: what jobs allocate, use, and give back."""

import pytest

from ppu.core.custody import StockUsed
from ppu.core.errors import ConfigurationError, LimitError, NotFoundError, PPUError
from ppu.core.labfile import LabFile
from ppu.store import cells, commands, custody, queue
from ppu.store.events import events_after
from ppu.store.jobs import JobRequest, JobState
from ppu.store.stock import Powder, ask_correction, ask_refill, find_stock, free_stock
from ppu.store.store import Store


def lab(**masses_g: float) -> LabFile:
    """Return a lab that has powders."""
    entry = {"at": "shelf.1", "purity": 0.99, "bulk_density_g_per_ml": 1.0}
    return LabFile.model_validate(
        {
            "lab": "stock",
            "schema_version": 1,
            "devices": {},
            "locations": {"shelf.1": {"holds": "crucible"}},
            "containers": {},
            "stock": {
                name: entry | {"mass_g": mass_g} for name, mass_g in masses_g.items()
            },
        }
    )


def wanting(**masses_g: float) -> JobRequest:
    """Return a request that allocates powders."""
    return JobRequest("mix", "1", {"n": 1}, stock=masses_g)


def submit(store: Store, *wanted: JobRequest) -> list[int]:
    """Put jobs into the queue."""
    return store.write(lambda c: queue.submit_many(c, wanted, 1.0))


def declare(store: Store, **masses_g: float) -> None:
    """Let a cell declare powders."""
    store.write(lambda c: custody.declare(c, lab(**masses_g), 0.0))


def free(store: Store) -> dict[str, float]:
    """Return what nobody has allocated."""
    with store.read() as connection:
        return free_stock(connection)


def test_submission_allocates_what_the_job_will_use(store: Store) -> None:
    """The same again by its key allocates nothing more; the end gives it back."""
    declare(store, BaO=2.0, TiO2=3.0)
    wanted = JobRequest("mix", "1", key="k", stock={"BaO": 1.5})
    (job_id,) = submit(store, wanted)
    submit(store, wanted)
    allocated = free(store)
    store.write(lambda c: queue.cancel(c, job_id, "ann", 2.0))

    assert allocated == {"BaO": 0.5, "TiO2": 3.0}
    assert free(store) == {"BaO": 2.0, "TiO2": 3.0}


def test_batch_is_refused_whole_when_stock_does_not_suffice(store: Store) -> None:
    """The error names each powder, what was asked for, and what is free."""
    declare(store, BaO=2.0, TiO2=3.0)
    submit(store, wanting(BaO=0.5))
    told = (
        r"1\.6 g of BaO are asked for, 1\.5 g are free; "
        r"4 g of TiO2 are asked for, 3 g are free"
    )
    with pytest.raises(LimitError, match=told):
        submit(store, wanting(BaO=0.8, TiO2=2.0), wanting(BaO=0.8, TiO2=2.0))
    with store.read() as connection:
        n_jobs = len(queue.find(connection))

    assert n_jobs == 1
    assert free(store) == {"BaO": 1.5, "TiO2": 3.0}


def test_stock_may_be_allocated_to_the_last_grain(store: Store) -> None:
    """Rounding of sums refuses nobody."""
    declare(store, BaO=0.3)
    submit(store, wanting(BaO=0.1), wanting(BaO=0.1), wanting(BaO=0.1))

    assert free(store)["BaO"] == pytest.approx(0.0)
    assert store.check() == []


@pytest.mark.parametrize("mass_g", [-1.0, float("nan"), float("inf")])
def test_mass_that_is_none_is_refused(store: Store, mass_g: float) -> None:
    """A protocol that counts wrongly allocates nothing."""
    with pytest.raises(ConfigurationError, match="give 0 or more"):
        submit(store, wanting(BaO=mass_g))


def test_powder_is_allocated_before_a_cell_declares_it(store: Store) -> None:
    """Then the oldest keep what they asked for, as far as there is something."""
    submit(store, wanting(BaO=1.5), wanting(BaO=1.0))
    declare(store, BaO=2.0)

    assert free(store) == {"BaO": 0.0}
    assert store.check() == []


def test_use_is_deducted_from_stock_and_allocation(store: Store, token: int) -> None:
    """What a job took is gone, what it still may take stays allocated."""
    declare(store, BaO=10.0)
    (job_id,) = submit(store, wanting(BaO=4.0))
    use(store, job_id, 3.0)
    during = free(store)
    store.write(lambda c: queue.claim(c, token, 2.0, 60.0))
    store.write(
        lambda c: queue.transition(c, job_id, JobState.FAILED, 3.0, token=token)
    )

    assert during == {"BaO": 6.0}
    assert free(store) == {"BaO": 7.0}


def use(store: Store, job_id: int, mass_g: float) -> None:
    """Let a job use powder."""
    store.write(lambda c: custody.enter(c, [StockUsed("BaO", mass_g)], job_id, 2.0))


def test_doser_that_gives_too_much_breaks_nothing(store: Store) -> None:
    """Others' allocations shrink, the newest first, and nothing goes below zero."""
    declare(store, BaO=2.0)
    first, second = submit(store, wanting(BaO=1.0), wanting(BaO=1.0))
    use(store, first, 1.25)
    after_one = free(store)
    use(store, second, 5.0)

    assert after_one == {"BaO": 0.0}
    assert free(store) == {"BaO": 0.0}
    assert store.check() == []


def test_use_without_a_allocation_is_kept(store: Store) -> None:
    """A protocol need not say beforehand what it uses."""
    declare(store, BaO=2.0)
    (job_id,) = submit(store, JobRequest("mix", "1"))
    use(store, job_id, 0.5)

    assert free(store) == {"BaO": 1.5}


def refill(store: Store, powder: str, mass_g: float) -> int | None:
    """Let a person say that powder was added."""
    return store.write(lambda c: ask_refill(c, powder, mass_g, "ann", 3.0, "lot 7"))


def test_refill_is_kept_with_who_says_so(store: Store) -> None:
    """What is there grows, what is allocated stays, and an event tells why."""
    declare(store, BaO=2.0)
    submit(store, wanting(BaO=1.5, TiO2=1.0))
    waits = refill(store, "BaO", 50.0)
    with store.read() as connection:
        found = find_stock(connection)
        (told,) = events_after(connection, kinds=["stock"])

    assert waits is None
    assert found == [Powder("BaO", 52.0, 1.5), Powder("TiO2", None, 1.0)]
    assert told.content == {
        "powder": "BaO",
        "added_g": 50.0,
        "mass_g": 52.0,
        "by": "ann",
        "note": "lot 7",
    }
    assert store.check() == []


def test_refill_waits_for_the_cell_if_one_lives(store: Store, token: int) -> None:
    """Its own ledger must change with the store's."""
    declare(store, BaO=2.0)
    number = refill(store, "BaO", 50.0)
    with store.read() as connection:
        (asked,) = commands.waiting(connection)

    assert (asked.sequence, asked.command) == (number, "refill")
    assert asked.content == {"powder": "BaO", "mass_g": 50.0, "note": "lot 7"}
    assert free(store) == {"BaO": 2.0}
    store.write(lambda c: cells.end(c, token, "stopped", 4.0))


@pytest.mark.parametrize(
    ("powder", "mass_g", "kind", "told"),
    [
        (
            "BaO2",
            1.0,
            NotFoundError,
            "no powder 'BaO2' in the ledger, .*; did you mean 'BaO'",
        ),
        ("BaO", 0.0, ConfigurationError, "more than 0"),
        ("BaO", -1.0, ConfigurationError, "more than 0"),
        ("BaO", float("nan"), ConfigurationError, "more than 0"),
        ("BaO", float("inf"), ConfigurationError, "more than 0"),
    ],
)
def test_refill_that_cannot_be_is_refused(
    store: Store, powder: str, mass_g: float, kind: type[PPUError], told: str
) -> None:
    """Of what is not there, and of no amount."""
    declare(store, BaO=2.0)
    with pytest.raises(kind, match=told):
        refill(store, powder, mass_g)


def correct(store: Store, mass_g: float, note: str = "a typo") -> int | None:
    """Let a person say how much BaO is really there."""
    return store.write(lambda c: ask_correction(c, "BaO", mass_g, "ann", 3.0, note))


def test_correction_is_kept_with_who_says_so(store: Store) -> None:
    """Whatever was believed; who has allocated more than there is is named."""
    declare(store, BaO=50.0)
    first, second, third = (
        job_id for _ in range(3) for job_id in submit(store, wanting(BaO=2.0))
    )
    waits = correct(store, 3.0)
    with store.read() as connection:
        (found,) = find_stock(connection)
        (told,) = events_after(connection, kinds=["stock"])

    assert waits is None
    assert first < second < third
    assert found == Powder("BaO", 3.0, 3.0)
    assert told.content == {
        "powder": "BaO",
        "believed_g": 50.0,
        "mass_g": 3.0,
        "lacking_g": {str(second): 1.0, str(third): 2.0},
        "by": "ann",
        "note": "a typo",
    }
    assert store.check() == []


def test_correction_waits_for_the_cell_if_one_lives(store: Store, token: int) -> None:
    """Its own ledger must change with the store's."""
    declare(store, BaO=2.0)
    number = correct(store, 0.0)
    with store.read() as connection:
        (asked,) = commands.waiting(connection)

    assert (asked.sequence, asked.command) == (number, "correct stock")
    assert asked.content == {"powder": "BaO", "mass_g": 0.0, "note": "a typo"}
    assert free(store) == {"BaO": 2.0}
    store.write(lambda c: cells.end(c, token, "stopped", 4.0))


@pytest.mark.parametrize(
    ("mass_g", "note", "told"),
    [
        (-1.0, "a typo", "0 or more"),
        (float("nan"), "a typo", "0 or more"),
        (float("inf"), "a typo", "0 or more"),
        (1.0, " ", "say why"),
    ],
)
def test_correction_that_cannot_be_is_refused(
    store: Store, mass_g: float, note: str, told: str
) -> None:
    """No amount can be less than nothing, and nobody corrects without a reason."""
    declare(store, BaO=2.0)
    with pytest.raises(ConfigurationError, match=told):
        correct(store, mass_g, note)
