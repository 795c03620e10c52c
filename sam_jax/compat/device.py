"""Where the caller's tensors belong, told without PyTorch."""


class Device(str):
    """A device's name, which PyTorch takes wherever it takes a device; with `torch.device`'s parts.

    It equals the string that it is, such as "cuda:1".
    """

    @property
    def type(self) -> str:
        """The name without its number."""
        return self.partition(":")[0]

    @property
    def index(self) -> int | None:  # type: ignore[override]
        """The number, or None where the name has none; takes the place of `str.index`."""
        number = self.partition(":")[2]
        return int(number) if number.isdecimal() else None
