import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from certlut.report.card import Config, read_config, shipped, subspace
from certlut.report.study import _opened

MINIMAL = 'title = "t"\ndata = "digits"\ninputs = 3\n'


def read(tmp_path: Path, text: str) -> Config:
    path = tmp_path / "card.toml"
    path.write_text(text)
    return read_config(path)


def test_the_shipped_cards_are_what_the_issue_asks_for() -> None:
    assert shipped() == ["cifar10", "digits", "fashion-mnist", "mnist", "patches"]
    assert all(read_config(name).trained for name in shipped())
    digits, patches = read_config("digits"), read_config("patches")
    for card in (digits, patches):
        assert card.sigma == (0.12, 0.25, 0.5, 1.0)
        assert card.alpha == 0.001
    assert (patches.inputs, patches.n, patches.subspace) == (50, 50_000, "red")
    assert max(digits.growth.n) == 1_000_000


def test_a_minimal_card_has_defaults_and_integers_will_do_for_numbers(tmp_path: Path) -> None:
    card = read(tmp_path, MINIMAL + "sigma = [1, 0.5]\n[growth]\nsigma = 1\nn = [500]\n")
    assert card.sigma == (1.0, 0.5)
    assert all(isinstance(sigma, float) for sigma in card.sigma)
    assert (card.growth.sigma, card.growth.n, card.growth.inputs) == (1.0, (500,), 4)
    assert card.n0 == 100


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("samples = 5\n", "unknown key samples, expected one of title, data"),
        ("[attack]\npower = 9\n", "unknown key attack.power, expected one of attack.sigma, attack.inputs, attack.classifiers"),
        ("n = 1.5\n", "n = 1.5: expected a valid integer"),
        ("n = 2000.0\n", "n = 2000.0: expected a valid integer"),
        ('n = "5"\n', "n = '5': expected a valid integer"),
        ("n = true\n", "n = True: expected a valid integer"),
        ("n = 0\n", "n = 0: expected greater than or equal to 1"),
        ('alpha = "x"\n', "alpha = 'x': expected a valid number"),
        ("alpha = 1.0\n", "alpha = 1.0: expected less than 1"),
        ("alpha = 0\n", "alpha = 0: expected greater than 0"),
        ("alpha = nan\n", "alpha = nan: expected"),
        ("sigma = 0.5\n", "sigma = 0.5: expected a list of numbers"),
        ("sigma = []\n", "sigma = []: expected a list of one number or more"),
        ("sigma = [0.5, 0.5]\n", "sigma = [0.5, 0.5]: expected different numbers"),
        ("sigma = [0.5, nan]\n", "sigma = nan: expected a finite number"),
        ("sigma = [0.5, inf]\n", "sigma = inf: expected a finite number"),
        ("sigma = [-0.5]\n", "sigma = -0.5: expected greater than 0"),
        ('sigma = ["0.5"]\n', "sigma = '0.5': expected a valid number"),
        ("growth = 3\n", "growth = 3: expected a section [growth]"),
        ("[growth]\nsigma = 0.3\n", "growth.sigma = 0.3: expected one of sigma"),
        ("[growth]\nn = [0]\n", "growth.n = 0: expected greater than or equal to 1"),
        ("[growth]\nn = [5, 5]\n", "growth.n = [5, 5]: expected different numbers"),
        ("[attack]\ninputs = 0\n", "attack.inputs = 0: expected greater than or equal to 1"),
        ('subspace = "blue"\n', "subspace = 'blue': expected left, red or NAME=mask:FILE.npy"),
        ("seed = -1\n", "seed = -1: expected greater than or equal to 0"),
        ("seed = 9223372036854775808\n", "seed = 9223372036854775808: expected less than 9223372036854775808"),
        ("device = 3\n", "device = 3: expected a valid string"),
        ('model = "m.pt2"\n', "comes with its networks"),
        ("this is not toml", "card.toml: "),
    ],
)
def test_a_bad_card_is_refused_in_one_line_that_names_file_and_key(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=r"card\.toml: ") as error:
        read(tmp_path, MINIMAL + text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_missing_key_and_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="key data is missing"):
        read(tmp_path, 'title = "t"\ninputs = 3\n')
    with pytest.raises(
        FileNotFoundError,
        match=r"nowhere: no such configuration file \(shipped ones: cifar10, digits, fashion-mnist, mnist, patches\)",
    ):
        read_config("nowhere")


def test_data_of_ones_own_needs_a_model(tmp_path: Path) -> None:
    own = MINIMAL.replace("digits", "mine.npz")
    with pytest.raises(ValueError, match=r"mine\.npz' needs a model and num_classes"):
        read(tmp_path, own)
    card = read(tmp_path, own + 'model = "net_{sigma}.pt2"\nnum_classes = 3\n')
    assert not card.trained


def test_a_model_of_ones_own_gets_the_layer_that_the_card_chooses(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text("import torch\n\ndef make():\n    return torch.nn.Flatten()\n")
    own = MINIMAL.replace("digits", "mine.npz") + f'model = "{tmp_path}/net.py:make"\nnum_classes = 4\n'
    x = torch.rand(3, 4)
    for line, expected in (("", x), ('normalise = "half"\n', 2.0 * x - 1.0)):
        card = read(tmp_path, own + line)
        assert torch.allclose(_opened(card.model, card)()(x), expected, atol=1e-6)


@pytest.mark.parametrize(
    "line", ['normalise = "half"', 'model = "m.pt"', "num_classes = 3", "skip = 2", 'split = "train"', 'device = "cuda"']
)
def test_what_bundled_data_would_ignore_is_refused(tmp_path: Path, line: str) -> None:
    with pytest.raises(ValueError, match=rf"data = 'digits' comes with its networks: leave out {line.split()[0]}$"):
        read(tmp_path, f"{MINIMAL}\n{line}\n")


def test_a_byte_order_mark_is_no_part_of_a_card(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.encode())
    assert read_config(path) == read(tmp_path, MINIMAL)


def test_a_binary_file_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "card.toml"
    path.write_bytes(b"\xaf\x00")
    with pytest.raises(ValueError, match=r"card\.toml: 'utf-8' codec"):
        read_config(path)


def test_quick_is_smaller_in_everything_that_costs() -> None:
    for name in shipped():
        card = read_config(name)
        quick = card.quick()
        assert quick.inputs <= 6 < card.inputs
        assert quick.n < card.n
        assert quick.sigma == (card.sigma[0], 1.0)
        assert quick.growth.sigma in quick.sigma
        assert quick.attack.sigma in quick.sigma
        assert max(quick.growth.n) < min(card.growth.n)
    one = dataclasses.replace(read_config("digits"), sigma=(0.5,))
    assert one.quick().sigma == (0.5,)


def test_subspaces_are_cut_from_the_inputs_shape() -> None:
    red = subspace("red", (3, 4, 4)).mask
    assert red is not None
    assert np.array_equal(red.sum(axis=(1, 2)), [16, 0, 0])
    left = subspace("left", (8, 8)).mask
    assert left is not None
    assert left[:, :4].all()
    assert not left[:, 4:].any()
    with pytest.raises(ValueError, match=r"subspace = 'red': the inputs have shape \(8, 8\)"):
        subspace("red", (8, 8))
    with pytest.raises(ValueError, match=r"subspace = 'left': the inputs have shape \(8,\)"):
        subspace("left", (8,))


def test_a_mask_of_ones_own_serves_as_the_fourth_threat(tmp_path: Path) -> None:
    mask = np.random.default_rng(3).random((3, 4, 4)) < 0.5
    np.save(tmp_path / "spots.npy", mask)
    config = read(tmp_path, MINIMAL + f'subspace = "spots=mask:{tmp_path}/spots.npy,p=inf"\n')
    own = subspace(config.subspace, (3, 4, 4))
    assert (own.name, own.p) == ("spots", np.inf)
    assert np.array_equal(own.mask, mask)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"the mask has shape \(3, 4, 4\), the inputs have shape \(8, 8\)"):
        subspace(config.subspace, (8, 8))
