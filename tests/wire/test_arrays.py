"""numpy's arrays and scalars on the wire: what goes in comes out, and what a hostile peer sends is a ProtocolError."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gtask.errors import EncodeError, ProtocolError
from gtask.wire.frames import Decoder, Encoder
from gtask.wire.limits import DEFAULTS
from gtask.wire.messages import Failure, Request, Value
from gtask.wire.reading import CHUNK
from gtask.wire.values import arrays
from gtask.wire.values import kinds as extensions
from gtask.wire.values.agreement import ConditionalFrame
from gtask.wire.values.offers import NOTHING, agree
from tests.support.examples import examples
from tests.support.needs import fail_or_skip

try:
    import numpy
except ImportError:
    numpy = None


@pytest.fixture(autouse=True)
def needs_numpy():
    if numpy is None:
        fail_or_skip("numpy: pip install numpy")


BOTH = agree({"numpy"})


def frame_of(value, limit=DEFAULTS.message):
    return Encoder(limit, BOTH).encode(Value(value))


def read(frame, agreement=BOTH):
    decoder = Decoder()
    decoder.agree(agreement)
    messages = []
    for start in range(0, len(frame), CHUNK):
        piece = frame[start : start + CHUNK]
        decoder.space[: len(piece)] = piece
        messages += decoder.received(len(piece))
    (message,) = messages
    return message.value


def travel(value):
    return read(frame_of(value))


def refusal(value, agreement=BOTH):
    encoder = Encoder(agreement=agreement)
    with pytest.raises(EncodeError) as caught:
        encoder.encode(Request(["f", value]))
    assert encoder.encode(Value(1)) == Encoder().encode(Value(1))
    return str(caught.value)


def assert_same(arrived, sent):
    """The same dtype, shape, order and bytes, in memory of its own that can be written."""
    assert type(arrived) is numpy.ndarray
    assert arrived.dtype == sent.dtype
    assert arrived.dtype.str == sent.dtype.str
    assert arrived.shape == sent.shape
    if sent.dtype.names is None:
        assert arrived.tobytes() == numpy.asarray(sent).tobytes()
    else:  # between whose fields may lie bytes that mean nothing
        assert (arrived == sent).all()
    assert arrived.flags.owndata
    assert arrived.flags.writeable
    assert arrived.flags.aligned
    if arrived.size and sent.flags.forc:
        assert (arrived.flags.c_contiguous, arrived.flags.f_contiguous) == (
            sent.flags.c_contiguous,
            sent.flags.f_contiguous,
        )


# --- what arrives ----------------------------------------------------------------------------------------

ATOMS = [
    "?", "i1", "u1", *[f"{order}{kind}{size}" for order in "<>" for kind in "iu" for size in (2, 4, 8)],
    *[f"{order}{kind}" for order in "<>" for kind in ("f2", "f4", "f8", "c8", "c16")], "longdouble", "clongdouble",
    "M8", "M8[ns]", ">M8[D]", "M8[25us]", "m8", "m8[Y]", ">m8[as]", "S1", "S7", "U1", "<U3", ">U5", "V1", "V9",
]  # fmt: skip
STRUCTURES = [
    [("x", "<i4"), ("y", ">f8")],
    [("day", "M8[D]"), ("name", "U3"), ("", "S2")],
    [("größe", "i1"), ("grid", "f4", (2, 3)), ("one", "i2", (1,))],
    [("in", [("a", "u1"), ("deeper", [("b", "c8")], (2,))]), ("ok", "?")],
]


def dtypes():
    aligned = numpy.dtype([("a", "i1"), ("b", "f8"), ("c", "i2")], align=True)
    gaps = numpy.dtype({"names": ["a", "b"], "formats": ["i4", "i2"], "offsets": [2, 11], "itemsize": 20})
    return [*map(numpy.dtype, [*ATOMS, *STRUCTURES]), aligned, gaps]


LAYOUTS = {
    "as it is": lambda array: array,
    "Fortran": lambda array: numpy.array(array, order="F"),
    "every second": lambda array: array[..., ::2] if array.ndim else array,
    "backwards": lambda array: array[::-1] if array.ndim else array,
    "turned": lambda array: array.T,
    "broadcast": lambda array: numpy.broadcast_to(array, (2, *array.shape)),
    "read-only": lambda array: (
        numpy.frombuffer(array.tobytes(), array.dtype).reshape(array.shape) if array.size else array
    ),
}


def filled(dtype, shape, seed):
    """An array of any bytes, but of those that numpy could not show."""
    count = int(numpy.prod(shape)) * dtype.itemsize
    data = numpy.random.default_rng(seed).integers(0, 2, count, "u1")  # valid as bools, and as characters nearly
    return numpy.ndarray(shape, dtype, data.tobytes()) if count else numpy.empty(shape, dtype)


@settings(deadline=None, max_examples=examples(2))
@given(st.data())
def test_an_array_comes_out_as_it_went_in(data):
    """Of any dtype that can be told, any shape, and however it lies in memory; by itself and deep in other values."""
    dtype = data.draw(st.sampled_from(dtypes()), "dtype")
    shape = data.draw(st.lists(st.integers(0, 4), max_size=4).map(tuple), "shape")
    array = LAYOUTS[data.draw(st.sampled_from(sorted(LAYOUTS)), "layout")](filled(dtype, shape, len(shape)))
    assert_same(travel(array), array)
    (inner,) = travel({"a": [1, [array]]})["a"][1]
    assert_same(inner, array)


def test_every_dtype_and_layout():
    """Each of them at least once."""
    for dtype in dtypes():
        for layout in LAYOUTS.values():
            array = layout(filled(dtype, (3, 4), 1))
            assert_same(travel(array), array)


def test_values_are_those_that_were_sent():
    """NaN, infinities, NaT and texts are equal, not only their bytes."""
    for array in (
        numpy.array([1.5, -0.0, numpy.nan, numpy.inf]),
        numpy.array(["2026-11-24", "NaT"], "M8[s]"),
        numpy.array(["ä", "", "\U0001f600"]),
        numpy.array([b"x", b""]),
        numpy.array([(1, 2.5)], [("a", "i4"), ("b", "f4")]),
    ):
        numpy.testing.assert_array_equal(travel(array), array)


def test_what_arrives_does_not_change_with_the_buffer():
    """It is a copy: the next read does not write over it."""
    decoder = Decoder()
    decoder.agree(BOTH)
    values = []
    for fill in (1, 2):
        frame = frame_of(numpy.full(100, fill, "u1"))
        decoder.space[: len(frame)] = frame
        values += [message.value for message in decoder.received(len(frame))]
    assert set(values[0]) == {1}


def test_what_is_sent_is_what_it_was_when_it_was_encoded():
    """The array may be changed afterwards."""
    array = numpy.zeros(100)
    frame = frame_of(array)
    array[:] = 1
    assert not read(frame).any()


SCALARS = {
    "int64": "int64(3)", "int8": "int8(-1)", "uint16": "uint16(65535)", "float32": "float32(0.1)",
    "float16": "float16(1.5)", "longdouble": "longdouble('1.1')", "complex64": "complex64(1+2j)", "bool": "bool_(True)",
    "datetime64": "datetime64('2026-11-24T12:30', 'ms')", "NaT": "datetime64('NaT', 's')",
    "timedelta64": "timedelta64(3, 'h')",
    "void": "void(b'ab')", "record": "array([(1, 'x', 2.5)], [('a', 'i4'), ('b', 'U2'), ('c', 'f8')])[0]",
}  # fmt: skip


@pytest.mark.parametrize("name", SCALARS)
def test_a_scalar_arrives_as_the_same(name):
    """Of the same type and the same bytes, in lists, too, and where it can be hashed in sets."""
    value = eval(f"numpy.{SCALARS[name]}")
    for arrived in (travel(value), travel([value])[0]):
        assert type(arrived) is type(value)
        assert arrived.dtype == value.dtype
        assert arrived.tobytes() == value.tobytes()
    if name not in ("NaT", "void", "record"):
        assert travel({value, (value,)}) == {value, (value,)}


def test_scalars_that_are_python_numbers_arrive_as_those():
    """float64, complex128, str_ and bytes_ derive from Python's types, and arrive as those, exact."""
    for value, kind in (
        (numpy.float64(0.1), float),
        (numpy.complex128(1 + 2j), complex),
        (numpy.str_("ä"), str),
        (numpy.bytes_(b"x"), bytes),
    ):
        assert travel(value) == value
        assert type(travel(value)) is kind


# --- what is refused -------------------------------------------------------------------------------------


def test_arrays_of_objects_are_refused():
    """Also in a field of a structure; the error says which and why."""
    for dtype in ("O", [("a", "i4"), ("b", "O")], [("a", [("b", "O")])]):
        text = refusal([numpy.zeros(2, dtype)])
        assert "argument 1[0] is of type numpy.ndarray: its items are Python objects" in text
        assert "argument 1 is of type" in refusal(numpy.zeros((), dtype))


def test_arrays_that_are_more_than_their_data_are_refused():
    """A masked array would lose its mask, a matrix its product; the error says what to send instead. A memmap's data is
    all that it is."""
    for array in (numpy.ma.masked_array([1, 2], [True, False]), numpy.zeros(2).view(numpy.recarray)):
        assert "only plain arrays travel; if its data alone will do, send numpy.array(it)" in refusal(array)


def test_a_memmap_arrives_as_an_array(tmp_path):
    """What lies in the file travels."""
    array = numpy.memmap(tmp_path / "data", "i4", "w+", shape=(3, 2), order="F")
    array[:] = 7
    arrived = travel(array)
    assert_same(arrived, array)
    assert (arrived == 7).all()


@pytest.mark.parametrize(
    "dtype",
    [
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [0, 2]},
        {"names": ["a", "b"], "formats": ["i4", "i4"], "offsets": [4, 0]},
        [(("a title", "a"), "i4")],
        [(f"field {number}", "u1") for number in range(arrays.FIELDS + 1)],
        [("x" * arrays.HEAD, "u1")],
        [],
    ],
    ids=["overlapping", "out of order", "titles", "too many fields", "too long a name", "no fields"],
)
def test_dtypes_that_cannot_be_told_are_refused(dtype):
    """Rather than to arrive as another."""
    assert "argument 1 is of type numpy.ndarray: its dtype" in refusal(numpy.zeros(2, dtype))


def test_texts_of_any_length_are_refused():
    """numpy 2 has an array of texts that lie elsewhere: its bytes are addresses."""
    if not hasattr(numpy, "dtypes") or not hasattr(numpy.dtypes, "StringDType"):
        pytest.skip("this numpy has none")
    assert "is of type numpy.ndarray" in refusal(numpy.array(["a", "bc"], numpy.dtypes.StringDType()))


def test_too_many_dimensions_are_refused():
    """A receiver's numpy may know fewer than the sender's."""
    assert_same(travel(numpy.zeros((1,) * 32)), numpy.zeros((1,) * 32))
    try:
        array = numpy.zeros((1,) * 33)
    except ValueError:
        return
    assert "it has 33 dimensions" in refusal(array)


def test_an_array_that_nobody_agreed_upon_is_refused():
    """In both directions, with the reason."""
    for value in (numpy.zeros(2), numpy.int64(1), {numpy.int64(1)}):
        assert "is of type" in refusal(value, agree((), {"numpy": "the client has no numpy"}))
        assert "the client has no numpy" in refusal(value, agree((), {"numpy": "the client has no numpy"}))
        with pytest.raises(ProtocolError, match="upon which both sides have not agreed"):
            read(frame_of(value), NOTHING)


def test_the_bytes_count_against_the_limit():
    """An array that fills a frame travels, one that is larger is refused before it is copied."""
    assert len(frame_of(numpy.zeros(900, "u1"), 1024)) < 1024
    with pytest.raises(EncodeError, match="too large: an array in it has 1025 bytes and the limit is 1024"):
        frame_of(numpy.zeros(1025, "u1"), 1024)
    with pytest.raises(EncodeError, match="too large: the message has"):
        frame_of([numpy.zeros(1000, "u1"), numpy.zeros(1000, "u1")], 1024)
    huge = numpy.broadcast_to(numpy.zeros(1, "u1"), (1 << 20,))
    tracemalloc.start()
    try:
        with pytest.raises(EncodeError, match="too large"):
            frame_of(huge, 1024)
        assert tracemalloc.get_traced_memory()[1] < 3 << 20
    finally:
        tracemalloc.stop()


def test_a_call_says_that_it_needs_numpy():
    """So that it is not sent to a worker that has none; other calls do not say so, not even the next one."""
    encoder = Encoder(agreement=BOTH)
    frame = encoder.encode_request(["f", numpy.zeros(2)], {}, 0)
    assert isinstance(frame, ConditionalFrame)
    assert frame.refusal(BOTH) == ""
    assert frame.refusal(agree((), {"numpy": "the server has none"})) == (
        "cannot travel: a value of type numpy.ndarray. The server has none"
    )
    assert type(encoder.encode_request(["f", 1], {}, 0)) is bytes
    with pytest.raises(EncodeError):
        encoder.encode_request(["f", numpy.zeros(2), len], {}, 0)
    assert type(encoder.encode_request(["f", 1], {}, 0)) is bytes


def test_numpy_is_not_imported_for_the_question():
    """Who has never used numpy does not pay for it, however it encodes; and nobody finds it where it is not."""
    program = """
import sys
from gtask.errors import EncodeError
from gtask.wire.values import arrays
from gtask.wire.values.offers import agree
from gtask.wire.frames import Encoder
encoder = Encoder(agreement=agree({"numpy"}))
try:
    encoder.encode_request(["f", len], {}, 0)
except EncodeError:
    pass
assert arrays.is_installed()
assert "numpy" not in sys.modules
sys.modules["numpy"] = None
arrays._is_found.cache_clear()
assert not arrays.is_installed()
"""
    subprocess.run([sys.executable, "-c", program], check=True)


# --- hostile peers ---------------------------------------------------------------------------------------


def hostile(code, head, data=b"", packed=None):
    """A frame with an ext type that nobody has checked."""
    payload = (msgpack.packb(head) if packed is None else packed) + data
    body = b"\x93\xa2ok\xc0" + msgpack.packb(msgpack.ExtType(code, payload))
    return struct.pack("!I", len(body)) + body


GOOD = (extensions.ARRAY, ["<i4", [2], "C"], b"12345678")


def test_what_is_right_is_read():
    """The hostile ones below differ from this one."""
    assert read(hostile(*GOOD)).shape == (2,)
    assert read(hostile(extensions.SCALAR, "<i4", b"1234")).dtype == "i4"


@pytest.mark.parametrize(
    "item",
    [
        "O", "|O", "|O8", "object", "<O8", "i4", "int", "<i3", "<i4,<i4", "2<i4", "<T16", "T", "|S", "<f8[us]",
        "<M8[x]", "<M8[us]//7", "|V-1", "|S99999999999", "<U4294967296", "<U999999999", "|i4", "<i1", "", "<i4\n",
        "f", "float64",
        "__import__('os')", None, 4, b"<i4", {}, [], [[]], [["a"]], [["a", "O"]], [["a", "<i4", 2]],
        [["a", "<i4", [-1]]], [["a", "<i4", [2**40, 2**40]]], [["a", "<i4", [2**31]]], [["a", "<i2"], ["a", "<i2"]],
        [[1, "<i4"]],
        [[["t", "a"], "<i4"]], [["a", [["b", "|O8"]]]], [["a", "<i4", [1], 1]], [["a", "<i4"], 1], "|S0", "|V0", "<U0",
    ],
    ids=repr,
)  # fmt: skip
def test_a_dtype_that_is_none_of_ours_is_refused(item):
    """Objects above all; and whatever numpy would make of other texts. Of scalars as well."""
    for shape in ([2], [0], []):
        with pytest.raises(ProtocolError):
            read(hostile(extensions.ARRAY, [item, shape, "C"], b"12345678"))
        with pytest.raises(ProtocolError):
            read(hostile(extensions.ARRAY, [item, shape, "C"]))
    for data in (b"", b"1234", b"12345678"):
        if item != "<i4":
            with pytest.raises(ProtocolError):
                read(hostile(extensions.SCALAR, item, data))


@pytest.mark.parametrize(
    "shape",
    [
        [1], [3], [0], [-2], [-1, -2], [2, -1], [2.0], [True, 2], ["2"], [None], 2, None, {}, "2", [[2]], [2**63],
        [2**64 - 1, 2], [2**63, 0], [2**70 % 2**64], [0, 2**62, 2**62], [2**32, 2**32, 2], [1] * 33, [1] * 32 + [2],
        [2, *[1] * 40],
    ],
    ids=repr,
)  # fmt: skip
def test_a_shape_that_does_not_fit_is_refused(shape):
    """Negative, huge, of another type, of too many dimensions, or simply another number of bytes."""
    with pytest.raises(ProtocolError):
        read(hostile(extensions.ARRAY, ["<i4", shape, "C"], b"12345678"))


@pytest.mark.parametrize("order", ["K", "A", "", "c", None, 1, "CF", b"C", ["C"]], ids=repr)
def test_an_order_that_is_none_is_refused(order):
    """There are two."""
    with pytest.raises(ProtocolError):
        read(hostile(extensions.ARRAY, ["<i4", [2], order], b"12345678"))


@pytest.mark.parametrize(
    "packed",
    [
        b"", b"\xc1", b"\x93", b"\x93\xa3<i4", b"\x92\xa3<i4\x91\x02", b"\x94\xa3<i4\x91\x02\xa1C\xc0", b"\xc0",
        b"\xdd\xff\xff\xff\xff", b"\xdd\x00\x00\x04\x00" * 900, b"\x91" * 3000, b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\x93\xa3<i4\x91\x02\xd4\x01\x01",
        b"\x93\xa1\xff\x90\xa1C", b"\x93" + b"\xda\xff\xff" + b"x" * 65535 + b"\x90\xa1C",
    ],
    ids=lambda packed: packed[:8].hex() or "nothing",
)  # fmt: skip
@pytest.mark.parametrize("code", [extensions.ARRAY, extensions.SCALAR])
def test_a_head_that_is_none_is_refused(code, packed):
    """What lies there instead takes little memory."""
    frame = hostile(code, None, b"12345678", packed)
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            read(frame)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()


@settings(deadline=None, max_examples=examples(3))
@given(st.data())
def test_damaged_arrays_are_protocol_errors(data):
    """Whatever bytes are changed, the frame is read or refused, and no array knows more memory than has come."""
    array = filled(data.draw(st.sampled_from(dtypes())), (2, 3), 1)
    damaged = bytearray(frame_of([array, array.reshape(-1)[0]]))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(4, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        value = read(bytes(damaged))
    except (ProtocolError, ValueError):  # the latter if it was no longer one frame
        return
    for part in value if isinstance(value, list) else ():
        if isinstance(part, numpy.ndarray):
            assert not part.dtype.hasobject
            assert part.nbytes <= len(damaged)


def test_an_array_where_no_value_is():
    """As the kind of a message, in its meta, as a key, in a set: a ProtocolError, never another exception."""
    array = msgpack.ExtType(extensions.ARRAY, msgpack.packb(["<i4", [2], "C"]) + b"12345678")
    members = msgpack.ExtType(extensions.SET, msgpack.packb([array]))
    for plain in (
        [array, None, 1], [array, None], ["ok", array, 1], ["ok", {"ld": array}, 1], ["ok", None, members],
        ["do", {"q": array}, "f"], ["do", {"kw": array}, "f"], ["do", {"t": array}], ["hi", {"v": array}],
        ["er", None, array], ["by", {"why": array}], array,
    ):  # fmt: skip
        body = msgpack.packb(plain)
        with pytest.raises(ProtocolError):
            read(struct.pack("!I", len(body)) + body)
    body = b"\x93\xa2ok\xc0\x81" + msgpack.packb(array) + b"\xc0"
    with pytest.raises(ProtocolError):
        read(struct.pack("!I", len(body)) + body)


def test_an_array_among_the_arguments_of_an_exception_does_no_harm():
    """It is what was told, and no more."""
    frame = Encoder(agreement=BOTH).encode(Failure("x", {"args": [numpy.zeros(2)]}))
    decoder = Decoder()
    decoder.agree(BOTH)
    decoder.space[: len(frame)] = frame
    (er,) = decoder.received(len(frame))
    assert er.exc["args"][0].shape == (2,)
