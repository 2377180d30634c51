"""The plain-Python decompressors against the libraries, and the bounds that hold for all."""

from __future__ import annotations

import contextlib
import random
import zlib

import cramjam
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st
from lzallright import LZOCompressor

from kdumpy.dumpfile import compression
from kdumpy.dumpfile.lzo import decompress_lzo
from kdumpy.dumpfile.snappy import decompress_snappy
from kdumpy.errors import DamagedDump

PAGE = 4096


def compressed(method: int, page: bytes) -> bytes:
    if method == compression.ZLIB:
        return zlib.compress(page, 1)
    if method == compression.LZO:
        return bytes(LZOCompressor().compress(page))
    if method == compression.SNAPPY:
        return bytes(cramjam.snappy.compress_raw(page))
    return zstandard.ZstdCompressor(level=1).compress(page)


@st.composite
def pages(draw: st.DrawFn) -> bytes:
    """Memory-like bytes: repeated words, text, noise, in runs."""
    rng = random.Random(draw(st.integers(0, 1 << 32)))
    out = bytearray()
    while len(out) < PAGE:
        word = rng.randbytes(rng.choice((1, 2, 8, 24)))
        out += rng.choice((word * rng.randrange(1, 300), rng.randbytes(rng.randrange(1, 400)),
                           out[-rng.randrange(1, 3000):][:rng.randrange(1, 200)]))
    return bytes(out[:PAGE])


@pytest.mark.parametrize("method", compression.NAMES)
@given(page=pages())
def test_each_method_gives_the_page_back(method: int, page: bytes) -> None:
    assert compression.decompress(method, compressed(method, page), PAGE, "here") == page


@given(page=pages())
def test_plain_python_lzo_equals_the_library(page: bytes) -> None:
    assert decompress_lzo(compressed(compression.LZO, page), PAGE) == page


@given(page=pages())
def test_plain_python_snappy_equals_the_library(page: bytes) -> None:
    assert decompress_snappy(compressed(compression.SNAPPY, page), PAGE) == page


@pytest.mark.parametrize("method", compression.NAMES)
@settings(max_examples=200)
@given(page=pages(), seed=st.integers(0, 1 << 32))
def test_damaged_data_is_a_damaged_dump(method: int, page: bytes, seed: int) -> None:
    rng = random.Random(seed)
    data = bytearray(compressed(method, page))
    for _ in range(rng.randrange(1, 5)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    del data[rng.randrange(1, len(data) + 1):]
    plain = {compression.LZO: decompress_lzo, compression.SNAPPY: decompress_snappy}.get(method)
    with contextlib.suppress(DamagedDump):
        assert len(compression.decompress(method, bytes(data), PAGE, "here")) == PAGE
    with contextlib.suppress(ValueError):
        assert plain is None or len(plain(bytes(data), PAGE)) <= PAGE


@given(data=st.binary(max_size=200))
def test_plain_python_never_raises_anything_else(data: bytes) -> None:
    for decompress in (decompress_lzo, decompress_snappy):
        with contextlib.suppress(ValueError):
            decompress(data, PAGE)


@pytest.mark.parametrize("method", compression.NAMES)
def test_more_than_a_page_is_refused(method: int) -> None:
    with pytest.raises(DamagedDump, match="here"):
        compression.decompress(method, compressed(method, bytes(100 * PAGE)), PAGE, "here")
