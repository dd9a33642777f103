from certlut.report.figures import samples_panel
from certlut.report.samples import CEILINGS, Spent, _ceilings


def test_ceilings_end_at_the_cards_n() -> None:
    assert list(_ceilings(500)) == [500]
    assert list(_ceilings(3000)) == [1000, 3000]
    assert list(_ceilings(100_000)) == [*CEILINGS, 100_000]


def test_the_picture_says_what_both_ways_end_at() -> None:
    panel = samples_panel(Spent("radius 0.5 in l2 and l1", ((1000.0, 0.7), (100_000.0, 0.91)), ((600.0, 0.7), (1204.5, 0.9))))
    assert "n fixed 0.910 with 100,000 samples an input; with targets 0.900 with 1,204 samples" in panel.alt
    assert "with targets" in panel.drawing
