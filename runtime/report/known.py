"""Data sets that the report trains its own small networks for."""

# They come with scikit-learn.
BUNDLED = ("digits", "patches")
# Their folder must be named: shape of an input, classes.
FOLDERS: dict[str, tuple[tuple[int, int, int], tuple[str, ...]]] = {
    "mnist": ((1, 28, 28), tuple("0123456789")),
    "fashion-mnist": (
        (1, 28, 28),
        ("top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "boot"),
    ),
    "cifar10": ((3, 32, 32), ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")),
}
