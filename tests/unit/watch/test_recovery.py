"""After a crash: the dead lose their leases, the living keep them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from nightglass.fitsio import part_path
from nightglass.layout import Layout
from nightglass.model import Stage, State
from nightglass.watch.owners import Owner
from nightglass.watch.recovery import recover
from tests.unit.watch.puppet import NIGHT, START, open_bench, stock


def test_only_the_dead_lose_their_leases_and_their_parts(tmp_path: Path) -> None:
    here = Owner.here("watch")
    dead, elsewhere = replace(here, started="before-1"), replace(here, host="other-host", started="x")
    layout = Layout(tmp_path)
    with open_bench(tmp_path) as bench:
        ledger = bench.ledger
        ledger.open_night(NIGHT, "lynx", midway_due=START, final_due=START + timedelta(days=1))
        parts = {}
        for number, owner in enumerate((dead, elsewhere, here), start=1):
            exposure = stock(ledger, number)
            lease = ledger.claim([exposure], owner=str(owner), lease_s=3600)[0]
            part = part_path(layout.reduced(ledger.refs([exposure])[0]), lease.token)
            part.parent.mkdir(parents=True, exist_ok=True)
            part.write_bytes(b"half")
            parts[number] = part
        assert ledger.claim_stage(NIGHT, "lynx", Stage.MIDWAY, owner=str(dead), lease_s=3600) is not None
        recovered = recover(ledger, layout, cameras={"lynx"})
        assert [entry.exposure_id for entry in recovered.exposures] == [f"lynx/{NIGHT}/0001"]
        assert [record.stage for record in recovered.stages] == [Stage.MIDWAY]
        assert recovered.parts == (parts[1],)
        states = {entry.exposure_id[-1]: entry.state for entry in ledger.entries()}
        assert states == {"1": State.GROUPED, "2": State.RUNNING, "3": State.RUNNING}
        assert [number for number, part in parts.items() if part.exists()] == [2, 3]
        again = recover(ledger, layout, cameras={"lynx"})
        assert (again.exposures, again.stages, again.parts) == ((), (), ())
