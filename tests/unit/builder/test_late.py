"""What comes late while a frame is on its way: the frame is through when all of it is."""

from __future__ import annotations

from pathlib import Path

from tests.unit.builder.desk import builder, image, wait_done


def test_a_frame_that_is_on_its_way_once_more_is_not_through(tmp_path: Path) -> None:
    with builder(tmp_path) as made:
        finisher, line = made._engine.finisher, made._engine.line
        made.accept(1, 0, "A", image(1))
        made.build(1, 0)
        wait_done(made, 1, 0)
        with finisher._gate(1, 0):  # nothing of it is done meanwhile
            for name in ("B", "C"):
                made.accept(1, 0, name, image(2))
            assert line.passes(1, 0) == 2
            finisher._end(1, 0)  # as the first of them would, before the second
            assert "done" not in made.frame(1, 0).times
        assert wait_done(made, 1, 0).revision == 3
        assert line.wait_idle(60.0)
        assert line.passes(1, 0) == 0
