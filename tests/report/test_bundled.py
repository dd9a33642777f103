import numpy as np
import pytest
import torch

from certlut.report import bundled


def test_patches_are_coloured_balanced_and_the_same_every_time() -> None:
    first, again = bundled.patches(60, 12), bundled.patches(60, 12)
    assert first.train.x.shape == (60, 3, 32, 32)
    assert first.test.x.shape == (12, 3, 32, 32)
    assert first.num_classes == len(first.classes) == 6
    assert np.array_equal(first.test.x, again.test.x)
    assert 0.0 <= first.train.x.min() < 0.1
    assert 0.9 < first.train.x.max() <= 1.0
    assert np.bincount(first.train.y).tolist() == [10] * 6
    # Three channels of a photograph, not one grey level three times.
    assert np.abs(first.train.x[:, 0] - first.train.x[:, 2]).max() > 0.3


def test_no_test_pixel_is_trained_on_and_labels_tell_photograph_and_band(monkeypatch: pytest.MonkeyPatch) -> None:
    class Photographs:
        # Channels: row, column, which photograph.
        images = tuple(
            np.stack([*np.meshgrid(np.arange(427) / 2, np.arange(640) / 4, indexing="ij"), np.full((427, 640), 255 * i)], axis=2)
            for i in range(2)
        )

    monkeypatch.setattr(bundled, "load_sample_images", Photographs)
    made = bundled.patches(600, 300)
    pixels = []
    for part in (made.train, made.test):
        rows, columns = np.rint(part.x[:, 0] * 510).astype(int), np.rint(part.x[:, 1] * 1020).astype(int)
        assert np.array_equal(part.x[:, 2, 0, 0], part.y // 3)
        assert np.array_equal(rows.min(axis=(1, 2)) // 142, part.y % 3)
        assert np.array_equal(rows.max(axis=(1, 2)) // 142, part.y % 3)
        assert (np.ptp(rows, axis=(1, 2)) == 31).all()
        assert (np.ptp(columns, axis=(1, 2)) == 31).all()
        pixels.append(
            {
                (int(y) // 3, r, c)
                for y, a, b in zip(part.y, rows, columns, strict=True)
                for r, c in zip(a.flat, b.flat, strict=True)
            }
        )
        # The column says which of the ten strips.
        strip = columns.min(axis=(1, 2)) // 64
        if part is made.test:
            assert np.array_equal(made.regions, part.y * 10 + strip)
            assert len(np.unique(made.regions)) == 6 * 3
    assert pixels[0].isdisjoint(pixels[1])
    assert min(map(len, pixels)) > 10_000


def test_the_patches_network_learns_and_is_small() -> None:
    data = bundled.patches(1500, 300)
    model = bundled.train("patches", data.train, 0.25, epochs=3)
    assert not model.training
    assert sum(p.numel() for p in model.parameters()) < 100_000
    with torch.inference_mode():
        x = torch.from_numpy(data.test.x)
        noisy = x + 0.25 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
        right = (model(noisy).argmax(dim=1).numpy() == data.test.y).mean()
    # Guessing gives 1/6.
    assert right > 1 / 3


def test_digits_are_split_without_overlap_and_the_same_way_every_time() -> None:
    digits, again = bundled.digits(), bundled.load("digits")
    assert (len(digits.train), len(digits.test), digits.num_classes, digits.test.x.shape[1:]) == (1697, 100, 10, (8, 8))
    assert np.array_equal(digits.test.x, again.test.x)
    assert 0.0 <= digits.train.x.min() <= digits.train.x.max() <= 1.0
    # No two scans are alike.
    assert len(np.unique(np.concatenate([digits.train.x, digits.test.x]), axis=0)) == 1797
    assert len(np.unique(digits.regions)) == 100


def test_networks_fit_their_data_and_other_names_are_refused() -> None:
    assert bundled.network("digits")(torch.zeros(2, 8, 8)).shape == (2, 10)
    assert bundled.network("patches")(torch.zeros(2, 3, 32, 32)).shape == (2, 6)
    with pytest.raises(ValueError, match="data set 'svhn': expected one of digits, patches, mnist"):
        bundled.load("svhn")


def test_networks_are_the_same_every_time_and_leave_torchs_generator_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    a, b = bundled.network("patches"), bundled.network("patches")
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters(), strict=True))


def test_one_thread_is_given_back() -> None:
    before = torch.get_num_threads()
    with bundled.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before
