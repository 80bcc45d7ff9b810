"""A second reader of Bouncer's envelope (custody/src/envelope.rs), after its documentation and by another library.

    envelope.py check custody/vectors/envelope-v1.json   # every published vector must come out as it says
    envelope.py make                                     # prints the vectors

Run by tests/tests/interop.rs. The vectors are made here and not by the Rust code, so that neither side can agree with
its own mistakes only.
"""

import base64
import binascii
import hashlib
import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC = b"\xbcBNC"
HEADER = struct.Struct(">4sBBI12s")
MAX_PAYLOAD, MAX_WRAPPED, TAG = 65_536, 6_144, 16


class Malformed(Exception):
    """The bytes are no envelope of this version."""


def canonical(context):
    """The encryption context as the tag covers it: sorted, counted, without its generation."""
    pairs = sorted(
        (key.encode(), value.encode()) for key, value in (context or {}).items() if key != "generation"
    )
    text = b"".join(struct.pack(">H", len(part)) + part for pair in pairs for part in pair)
    return struct.pack(">H", len(pairs)) + text


def parse_context(text):
    """`k=v,k=v` as a dictionary."""
    return dict(pair.split("=", 1) for pair in text.split(",")) if text else {}


def decode(reference):
    """The bytes of a ciphertext_ref: strict standard base64."""
    try:
        raw = base64.b64decode(reference, validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed("base64") from error
    if not raw or base64.b64encode(raw).decode() != reference:
        raise Malformed("base64")
    return raw


def parse(raw):
    """Header, wrapped key and sealed payload."""
    if len(raw) < HEADER.size + 2:
        raise Malformed("cut off")
    magic, version, algorithm, payload, _ = HEADER.unpack_from(raw)
    if (magic, version, algorithm) != (MAGIC, 1, 1):
        raise Malformed("version")
    (wrapped,) = struct.unpack_from(">H", raw, HEADER.size)
    if not 1 <= payload <= MAX_PAYLOAD or not 1 <= wrapped <= MAX_WRAPPED:
        raise Malformed("bounds")
    at = HEADER.size + 2
    if len(raw) != at + wrapped + payload + TAG:
        raise Malformed("length")
    return raw[: HEADER.size], raw[at : at + wrapped], raw[at + wrapped :]


def open_envelope(raw, context, data_key):
    """The payload. InvalidTag if it is not authentic."""
    header, _, sealed = parse(raw)
    if len(data_key) != 32:
        raise InvalidTag
    return AESGCM(data_key).decrypt(header[-12:], sealed, header + canonical(context))


def seal(payload, context, data_key, wrapped, nonce):
    """An envelope."""
    header = HEADER.pack(MAGIC, 1, 1, len(payload), nonce)
    sealed = AESGCM(data_key).encrypt(nonce, payload, header + canonical(context))
    return header + struct.pack(">H", len(wrapped)) + wrapped + sealed


def outcome(vector):
    """What a reader makes of a vector: its result, and the payload where there is one."""
    try:
        raw = decode(vector["ciphertext_ref"])
        if not raw.startswith(MAGIC):
            return ("direct" if len(raw) <= MAX_WRAPPED else "malformed"), None
        parse(raw)
    except Malformed:
        return "malformed", None
    try:
        context = parse_context(vector["context"])
        return "opens", open_envelope(raw, context, bytes.fromhex(vector["data_key"]))
    except InvalidTag:
        return "not_authentic", None


def check(path):
    """Reads every vector; returns what came out otherwise than it says."""
    with open(path, encoding="utf-8") as file:
        vectors = json.load(file)["vectors"]
    wrong = []
    for vector in vectors:
        result, payload = outcome(vector)
        expected = vector["result"], bytes.fromhex(vector["payload"]) if vector["result"] == "opens" else None
        if (result, payload) != expected:
            wrong.append(f"{vector['name']}: {result} instead of {vector['result']}")
    print(f"{len(vectors)} vectors, {len(wrong)} wrong")
    return wrong


def make():
    """All vectors. Keys and nonces are digests of names: nothing here is random, and nothing is secret."""

    def digest(name, length):
        return hashlib.sha256(name.encode()).digest()[:length]

    vectors = []

    def add(name, raw, result, context=None, data_key=b"", payload=b""):
        reference = raw if isinstance(raw, str) else base64.b64encode(raw).decode()
        vector = {"name": name, "result": result, "context": context, "data_key": data_key.hex()}
        if result in ("opens", "not_authentic"):
            header, wrapped, _ = parse(base64.b64decode(reference))
            vector["wrapped_key"] = wrapped.hex()
            if result == "opens":
                associated = header + canonical(parse_context(context))
                vector |= {"associated_data": associated.hex(), "payload": payload.hex()}
        vectors.append(vector | {"ciphertext_ref": reference})

    key, nonce = digest("data key", 32), digest("nonce", 12)
    wrapped = digest("wrapped", 32) * 5
    payload = b'{"kind":"header","name":"authorization","prefix":"Bearer ","value":"a vector, not a secret"}'
    guide = "env=production,bouncer=payments-east"
    made = seal(payload, parse_context(guide), key, wrapped, nonce)
    at = HEADER.size + 2  # where the wrapped key begins
    end = at + len(wrapped)  # where the sealed payload begins

    good = [
        ("the guide's context", guide, payload, wrapped),
        ("the same pairs in another order", "bouncer=payments-east,env=production", payload, wrapped),
        ("no context", None, payload, wrapped),
        ("one byte", guide, b"\n", wrapped),
        ("the shortest wrapped key", guide, payload, b"\x01"),
        ("the longest wrapped key", guide, payload, b"\x5a" * MAX_WRAPPED),
        ("a value with equals signs", "bouncer=a,note=b=c=d", payload, wrapped),
        ("keys that sort by bytes", "b=1,B=2,a=3,a-b=4,a.b=5", payload, wrapped),
        ("generation 1", guide + ",generation=1", payload, wrapped),
        ("generation alone, which counts as no context", "generation=7", payload, wrapped),
    ]
    for name, context, what, under in good:
        raw = seal(what, parse_context(context), key, under, nonce)
        add(name, raw, "opens", context, key, what)
    first = seal(payload, parse_context(guide + ",generation=1"), key, wrapped, nonce)
    moved = first[: HEADER.size] + struct.pack(">H", 200) + b"\xa5" * 200 + first[end:]
    add("moved by ReEncrypt to another key and generation", moved, "opens", guide + ",generation=2", key, payload)

    for name, context in [
        ("another value", "env=production,bouncer=payments-west"),
        ("another key", "env=production,Bouncer=payments-east"),
        ("a pair too few", "env=production"),
        ("a pair too many", guide + ",team=a"),
        ("values exchanged", "env=payments-east,bouncer=production"),
        ("a boundary moved", "env=production,bounce=r=payments-east"),
        ("no context where there was one", None),
    ]:
        add(f"context: {name}", made, "not_authentic", context, key)
    add("data key: another one", made, "not_authentic", guide, digest("another data key", 32))
    add("data key: of 16 bytes", made, "not_authentic", guide, key[:16])
    add("data key: with a byte too many", made, "not_authentic", guide, key + b"\0")

    def flipped(position):
        raw = bytearray(made)
        raw[position] ^= 1
        return bytes(raw)

    for name, position in [
        ("first byte of the nonce", 10),
        ("last byte of the nonce", 21),
        ("first byte of the payload", end),
        ("last byte of the payload", len(made) - TAG - 1),
        ("first byte of the tag", len(made) - TAG),
        ("last byte of the tag", len(made) - 1),
    ]:
        add(f"flipped: {name}", flipped(position), "not_authentic", guide, key)
    for name, position, result in [
        ("magic", 3, "direct"),
        ("version", 4, "malformed"),
        ("algorithm", 5, "malformed"),
        ("payload length", 9, "malformed"),
        ("wrapped key length", 23, "malformed"),
    ]:
        add(f"flipped: {name}", flipped(position), result, guide, key)

    def with_payload(length, rest):
        return made[:6] + struct.pack(">I", length) + made[10:end] + rest

    def with_wrapped(under):
        return made[: HEADER.size] + struct.pack(">H", len(under)) + under + made[end:]

    for name, raw in [
        ("version 0", made[:4] + b"\0" + made[5:]),
        ("version 2", made[:4] + b"\2" + made[5:]),
        ("empty payload", with_payload(0, b"\0" * TAG)),
        ("payload of 65,537 bytes, by its length alone", with_payload(65_537, b"\0" * 64)),
        ("payload length of all ones", with_payload(0xFFFFFFFF, b"\0" * 64)),
        ("empty wrapped key", with_wrapped(b"")),
        ("wrapped key of 6,145 bytes", with_wrapped(b"\1" * (MAX_WRAPPED + 1))),
        ("cut off behind the magic", made[:4]),
        ("cut off in the header", made[:21]),
        ("cut off behind the header", made[:22]),
        ("cut off in the wrapped key", made[: end - 1]),
        ("cut off behind the wrapped key", made[:end]),
        ("cut off before the tag", made[:-TAG]),
        ("cut off by one byte", made[:-1]),
        ("one byte too many", made + b"\0"),
        ("a second envelope behind it", made + made),
        ("base64 without its padding", base64.b64encode(made).decode().rstrip("=")),
        ("base64 with a line end", base64.b64encode(made).decode() + "\n"),
        ("URL-safe base64", base64.urlsafe_b64encode(made).decode()),
        ("nothing", ""),
    ]:
        add(f"malformed: {name}", raw, "malformed", guide, key)
    note = (
        "Bouncer's envelope, version 1. data_key is what KMS gives for wrapped_key under the context. results: opens "
        "(payload), not_authentic (the tag is wrong), malformed (refused before KMS is asked), direct (no envelope, "
        "but what KMS would be asked to decrypt as it stands). Made by tests/python/envelope.py."
    )
    return {"note": note, "vectors": vectors}


if __name__ == "__main__":
    if sys.argv[1:] == ["make"]:
        print(json.dumps(make(), indent=1))
    elif len(sys.argv) == 3 and sys.argv[1] == "check":
        failures = check(sys.argv[2])
        sys.exit("\n".join(failures) or 0)
    else:
        sys.exit(__doc__)
