"""Read the members of a `.keras` file, a zip archive, without unpacking it to a disk.

Keras stores the members uncompressed, so the weights are read where they lie in the archive. A compressed member is
decoded into memory, within a limit. Every size that the archive declares is checked.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections import Counter
from pathlib import Path
from typing import BinaryIO

from filterdb.errors import ModelError
from filterdb.models.data_files import read_exactly
from filterdb.models.parse_errors import shortened

_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
_ENCRYPTED = 1
_STEP = 2**20


class Archive:
    """An open `.keras` file. `named` is its name in messages."""

    def __init__(self, path: Path, named: str) -> None:
        self.named = named
        self.file: BinaryIO = path.open("rb")
        self.size = path.stat().st_size
        try:
            self.zip = zipfile.ZipFile(self.file)
        except (zipfile.BadZipFile, NotImplementedError, struct.error, OSError) as error:
            raise ModelError(
                f"{named}: expected a zip archive, got a damaged one ({error}); download it again"
            ) from error
        self.counts = Counter(info.filename for info in self.zip.infolist())

    def read(self, name: str, limit: int) -> bytes | None:
        """Return the bytes of a member; None if there is none. Raises ModelError if it has more than `limit` bytes."""
        info = self._member(name)
        if info is None:
            return None
        if info.file_size > limit:
            raise self._error(name, f"at most {limit:,} bytes", f"{info.file_size:,}; {_SMALLER}")
        return self._decoded(info)

    def open(self, name: str, limit: int) -> BinaryIO | None:
        """Open a member for reading at any position; None if there is none.

        Raises ModelError if it is damaged, or if it is compressed and has more than `limit` bytes.
        """
        info = self._member(name)
        if info is None:
            return None
        if info.compress_type == zipfile.ZIP_STORED:
            window = io.BufferedReader(_Window(self.file, self._start(info), info.file_size), _STEP)
            self._check_sum(info, window)
            return window
        if info.file_size > limit:
            got = f"{info.file_size:,}; save it uncompressed, as Keras does, or raise --model-memory"
            raise self._error(name, f"at most {limit:,} bytes to decompress", got)
        return io.BytesIO(self._decoded(info))

    def _member(self, name: str) -> zipfile.ZipInfo | None:
        """Return a member's entry after checking that it can be read."""
        if not self.counts[name]:
            return None
        if self.counts[name] > 1:
            raise self._error(name, "one member of this name", f"{self.counts[name]}; {_AGAIN}")
        info = self.zip.getinfo(name)
        if info.flag_bits & _ENCRYPTED:
            raise self._error(name, "plain data", "an encrypted member; save it without a password")
        if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
            raise self._error(name, "data that is stored or deflated", f"method {info.compress_type}; {_AGAIN}")
        is_stored = info.compress_type == zipfile.ZIP_STORED
        most = info.file_size if is_stored else info.file_size + info.file_size // 1000 + _STEP
        if info.compress_size > most or (is_stored and info.compress_size < most):
            got = f"{info.file_size:,} bytes in {info.compress_size:,}"
            raise self._error(name, "sizes that can be true", f"{got}; {_AGAIN}")
        return info

    def _start(self, info: zipfile.ZipInfo) -> int:
        """Return where a member's data begins, after checking that the archive holds all of it."""
        if not 0 <= info.header_offset <= self.size - _LOCAL_HEADER.size:
            raise self._error(info.filename, "a member inside the archive", f"one at {info.header_offset:,}; {_AGAIN}")
        header = _LOCAL_HEADER.unpack(read_exactly(self.file, info.header_offset, _LOCAL_HEADER.size))
        if header[0] != b"PK\3\4" or header[2] & _ENCRYPTED or header[3] != info.compress_type:
            raise self._error(info.filename, "a member as the archive lists it", f"another; {_AGAIN}")
        start: int = info.header_offset + _LOCAL_HEADER.size + header[9] + header[10]
        if start + info.compress_size > self.size:
            raise self._error(info.filename, f"{info.compress_size:,} bytes at {start:,}", f"fewer; {_AGAIN}")
        return start

    def _decoded(self, info: zipfile.ZipInfo) -> bytes:
        """Return a member's bytes, decoding no more than it declares."""
        data = read_exactly(self.file, self._start(info), info.compress_size)
        if info.compress_type == zipfile.ZIP_DEFLATED:
            try:
                data = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data, info.file_size + 1)
            except zlib.error as error:
                raise self._error(info.filename, "deflated data", f"{error}; {_AGAIN}") from error
        if len(data) != info.file_size or zlib.crc32(data) != info.CRC:
            raise self._error(info.filename, "the bytes that were saved", f"others; {_AGAIN}")
        return data

    def _check_sum(self, info: zipfile.ZipInfo, window: BinaryIO) -> None:
        """Raise ModelError if a stored member's bytes are not those that were saved: HDF5 would not notice."""
        checksum = 0
        while block := window.read(_STEP):
            checksum = zlib.crc32(block, checksum)
        if checksum != info.CRC:
            raise self._error(info.filename, "the bytes that were saved", f"others; {_AGAIN}")
        window.seek(0)

    def _error(self, name: str, expected: str, got: str) -> ModelError:
        return ModelError(f"{self.named}: {shortened(name, 60)}: expected {expected}, got {got}")


_AGAIN = "download or save the file again"
_SMALLER = "save the model without custom data"


class _Window(io.RawIOBase):
    """A part of an open file, as a file of its own."""

    def __init__(self, file: BinaryIO, start: int, size: int) -> None:
        self._file, self._start, self._size, self._position = file, start, size, 0

    def readable(self) -> bool:
        """Return that it can be read."""
        return True

    def seekable(self) -> bool:
        """Return that its position can be set."""
        return True

    def tell(self) -> int:
        """Return the position."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Set the position, and return it."""
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill a buffer from the position on, and return how many bytes were read."""
        count = max(0, min(len(buffer), self._size - self._position))
        self._file.seek(self._start + self._position)
        data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)
