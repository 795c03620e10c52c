"""Batches without end from a dataset: shuffled, split between processes, read by worker processes.

Grain does the shuffling, and reads ahead in threads. A sample's place in the stream decides
everything random about it, so that a position is all there is to save: batches after it are the
same whether training was interrupted there or not, and with any number of workers.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from sam_jax.data.batches import TrainingBatch
from sam_jax.data.fingerprints import check_resumed
from sam_jax.data.readers import ReaderProcesses
from sam_jax.data.samples import Dataset, RecordError
from sam_jax.data.transforms import FramedSample, FrameOptions, batch_of, framed
from sam_jax.errors import InputError

# After so many unusable records in a row, or twice as many as the dataset has, none will come.
_LONGEST_STRETCH = 1000
_SHORTEST_STRETCH = 20
_NAMED = 3
# Read ahead without workers, by threads: Pillow and much of NumPy let others run meanwhile.
_THREADS = 2
_AHEAD = 4


@dataclass(frozen=True)
class Skipped:
    """What stands in the stream for a record that cannot be used."""

    reason: str
    message: str


def training_batches(
    dataset: Dataset,
    options: FrameOptions,
    *,
    batch_size: int,
    seed: int = 0,
    workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
) -> "TrainingBatches":
    """Batches of a dataset for one of the processes that train together, without end.

    Each epoch goes through all records once, in an order of its own; a batch may have the end of
    one and the beginning of the next.

    Args:
      dataset: what to read; `layouts.open_dataset` opens one.
      options: how images and masks come into the frame.
      batch_size: images a batch of this process.
      seed: of order, choice of masks and augmentation; the same for all processes.
      workers: processes that read and resize; 0 for threads of this one.
      process_index: `jax.process_index()`.
      process_count: `jax.process_count()`.

    Raises:
      InputError: Grain is not installed, or a number is out of range.
    """
    if batch_size < 1 or workers < 0 or seed < 0:
        raise InputError(
            f"batch_size is at least 1, workers and seed at least 0, not {batch_size}, {workers} "
            f"and {seed}"
        )
    if not 0 <= process_index < process_count:
        raise InputError(f"there is no process {process_index} among {process_count}")
    part = {"seed": seed, "process_index": process_index, "process_count": process_count}
    return TrainingBatches(dataset, options, batch_size, workers, part)


class TrainingBatches(Iterator[TrainingBatch]):
    """An iterator of batches on the host, as NumPy arrays.

    Worker processes are started with the first batch, and end with `close`, or as a context
    manager.
    """

    def __init__(
        self,
        dataset: Dataset,
        options: FrameOptions,
        batch_size: int,
        workers: int,
        part: Mapping[str, int],
    ) -> None:
        """Use `training_batches`."""
        _grain()
        self._options, self._batch_size, self._workers = options, batch_size, workers
        self._part = {"records": len(dataset), **part}
        # Data that are made, not read, have none.
        self._fingerprint = getattr(dataset, "fingerprint", str)()
        if not len(dataset):
            raise InputError("the dataset is empty")
        self._stream = partial(_samples, dataset, options, dict(part))
        self._position = 0
        # Some datasets have left out entries of an annotation file when they were opened.
        self._skipped: Counter[str] = Counter(getattr(dataset, "left_out", {}))
        self._reader: Any = None

    def __next__(self) -> TrainingBatch:
        """The next batch.

        Raises:
          InputError: a long stretch of records cannot be used, of which the message names the
            first; or a process that reads was killed.
        """
        samples: list[FramedSample] = []
        stretch: list[Skipped] = []
        length = 0
        limit = min(_LONGEST_STRETCH, max(_SHORTEST_STRETCH, 2 * self._part["records"]))
        while len(samples) < self._batch_size:
            sample = self._next_sample()
            if not isinstance(sample, Skipped):
                samples.append(sample)
                stretch, length = [], 0
                continue
            self._skipped[sample.reason] += 1
            length += 1
            stretch = [*stretch, sample][:_NAMED]
            if length == limit:
                first = "; ".join(each.message for each in stretch)
                raise InputError(f"{length} records one after the other cannot be used: {first}")
        return batch_of(samples, self._options)

    @property
    def epochs(self) -> float:
        """How often all records have been gone through, by all processes together."""
        return self._position * self._part["process_count"] / self._part["records"]

    def skipped(self) -> dict[str, int]:
        """How many records this process has left out since the beginning, by reason."""
        return dict(self._skipped)

    def get_state(self) -> dict[str, Any]:
        """Where the stream is, as JSON holds it: what `set_state` goes on from."""
        return {
            **self._part,
            "fingerprint": self._fingerprint,
            "position": self._position,
            "skipped": self.skipped(),
        }

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Goes on where the state was taken, with the batches that would have come.

        Raises:
          InputError: it is of another dataset, seed or process.
        """
        check_resumed(state, {**self._part, "fingerprint": self._fingerprint})
        self.close()
        self._position = state["position"]
        self._skipped = Counter(state["skipped"])

    def close(self) -> None:
        """Ends worker processes and threads; another batch starts them again."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> "TrainingBatches":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _next_sample(self) -> FramedSample | Skipped:
        if self._reader is None:
            self._reader = self._reading()
        sample = next(self._reader)
        self._position += 1
        return sample

    def _reading(self) -> Any:
        """Samples from the position on, read by threads or processes."""
        if self._workers:
            return ReaderProcesses(self._stream, self._position, self._workers)
        options = _grain().ReadOptions(num_threads=_THREADS, prefetch_buffer_size=_AHEAD)
        return iter(self._stream()[self._position :].to_iter_dataset(options))


def _samples(dataset: Dataset, options: FrameOptions, part: Mapping[str, int]) -> Any:
    """A process's part of the stream, as Grain's `MapDataset` of `FramedSample` or `Skipped`."""
    records = _grain().MapDataset.range(len(dataset)).seed(part["seed"]).shuffle().repeat()
    # Random numbers go by the place in the stream of all processes: none has another's.
    samples = records.random_map(_Load(dataset, options))
    return samples[part["process_index"] :: part["process_count"]]


class _Load:
    """Reads a record by its number, into the frame."""

    def __init__(self, dataset: Dataset, options: FrameOptions) -> None:
        self._dataset, self._options = dataset, options

    def __call__(self, index: int, rng: np.random.Generator) -> FramedSample | Skipped:
        try:
            return framed(self._dataset[index], self._options, rng)
        except RecordError as error:
            return Skipped(error.reason, str(error))


def _grain() -> Any:
    try:
        import grain
    except ImportError:
        raise InputError(
            'training reads its data with Grain; pip install "sam-jax[train]"'
        ) from None
    return grain
