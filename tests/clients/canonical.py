"""The canonical hash of docs/protocol.md, section 12, written from that page alone."""

import hashlib
import json
import math
from decimal import Decimal


def number(value):
    """A number as ECMAScript prints it (RFC 8785, section 3.2.2.3)."""
    if isinstance(value, int):
        # Whole numbers beyond 2^53 - 1 are refused where they are published, so this one is exact.
        value = float(value)
    if not math.isfinite(value):
        raise ValueError("JSON has no such number")
    if value == 0:
        return "0"
    # `repr` gives the shortest digits that read back the same, as ECMAScript does.
    sign, digits, exponent = Decimal(repr(value)).normalize().as_tuple()
    text = "".join(map(str, digits))
    point = len(text) + exponent
    if 0 < point <= 21:
        text = text.ljust(point, "0") if exponent >= 0 else f"{text[:point]}.{text[point:]}"
    elif -6 < point <= 0:
        text = f"0.{'0' * -point}{text}"
    else:
        mantissa = text[0] if len(text) == 1 else f"{text[0]}.{text[1:]}"
        text = f"{mantissa}e{point - 1:+d}"
    return ("-" if sign else "") + text


def canonical(value):
    """RFC 8785."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, list):
        return f"[{','.join(map(canonical, value))}]"
    names = sorted(value, key=lambda name: name.encode("utf-16-be"))
    return "{" + ",".join(f"{canonical(name)}:{canonical(value[name])}" for name in names) + "}"


def value_hash(value):
    return hashlib.sha256(canonical(value).encode()).digest()


def channel_hash(items):
    """The hash of a dict of keys to parsed values."""
    whole = hashlib.sha256()
    for key in sorted(key.encode() for key in items):
        whole.update(len(key).to_bytes(4, "big") + key + value_hash(items[key.decode()]))
    return f"sha256:{whole.hexdigest()}"
