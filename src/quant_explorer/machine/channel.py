"""Messages between two processes: a pipe, and a file without a name through which arrays go.

A pipe takes a batch of images in pieces of some 200 KB, each of which wakes up both processes, and pickling
copies it three times more. Through the file it is copied once on each side.
"""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from threading import Lock

from quant_explorer.core.errors import WorkerError, explain

# The system copies no more at once.
_LARGEST_PIECE = 2**30


@dataclass
class Channel:
    """One end: `file` is the descriptor of the file that both ends write to and read from, owned by this end.

    Each message is answered before the next is sent, so that the file holds the arrays of one at a time.
    """

    connection: Connection
    file: int
    # Another thread may close this end; the descriptor's number is then any other file's.
    _lock: Lock = field(default_factory=Lock, init=False)
    _closed: bool = field(default=False, init=False)

    def send(self, message: object) -> None:
        """Send anything that can be pickled. Raises WorkerError when there is no room for its arrays."""
        buffers: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(message, 5, buffer_callback=buffers.append)
        arrays = [buffer.raw() for buffer in buffers]
        sizes = [array.nbytes for array in arrays]
        try:
            self._write(arrays)
        except OSError as error:
            reason = error.strerror or explain(error)
            raise WorkerError(f"{sum(sizes):,} bytes cannot be handed to the worker ({reason})") from error
        self.connection.send((sizes, pickled))

    def receive(self) -> object:
        """Return the next message. Raises EOFError when the other end is closed."""
        sizes, pickled = self.connection.recv()
        return pickle.loads(pickled, buffers=self._read(sizes))

    def poll(self, timeout_s: float) -> bool:
        """Return whether a message comes within this time."""
        return self.connection.poll(timeout_s)

    def close(self) -> None:
        """Close this end."""
        self.connection.close()
        with self._lock:
            if not self._closed:
                os.close(self.file)
            self._closed = True

    def _write(self, arrays: Sequence[memoryview]) -> None:
        with self._lock:
            if self._closed:
                return
            position = 0
            for array in arrays:
                done = 0
                while done < array.nbytes:
                    done += os.pwrite(self.file, array[done : done + _LARGEST_PIECE], position + done)
                position += done

    def _read(self, sizes: Sequence[int]) -> list[bytearray]:
        arrays = [bytearray(size) for size in sizes]
        with self._lock:
            if self._closed:
                raise EOFError("this end is closed")
            position = 0
            for array in arrays:
                view, done = memoryview(array), 0
                while done < len(array):
                    piece = view[done : done + _LARGEST_PIECE]
                    count = os.preadv(self.file, [piece], position + done)
                    if not count:
                        raise EOFError("the file ends before the message")
                    done += count
                position += done
        return arrays


def create_file() -> int:
    """Return the descriptor of a new file without a name, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("batches")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
