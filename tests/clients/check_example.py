"""Recomputes the worked example of docs/protocol.md, read from standard input."""

import json
import sys

from canonical import canonical, channel_hash, number, value_hash

example = json.load(sys.stdin)
for line in example["hashed"]:
    value = example["items"][line["key"]]
    assert len(line["key"].encode()) == line["keyBytes"], line
    assert canonical(value) == line["value"], (canonical(value), line)
    assert value_hash(value).hex() == line["valueSha256"], line
assert channel_hash(example["items"]) == example["hash"]
assert channel_hash({}) == "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

# Samples of RFC 8785, appendix B, and of ECMAScript's limits between the two notations.
for value, text in [
    (1.0, "1"), (-0.0, "0"), (1e-7, "1e-7"), (0.000001, "0.000001"), (1e21, "1e+21"),
    (999999999999999900000.0, "999999999999999900000"), (333333333.3333333, "333333333.3333333"),
    (5e-324, "5e-324"), (1.7976931348623157e308, "1.7976931348623157e+308"), (-1.5, "-1.5"),
    (100, "100"), (1e16, "10000000000000000"),
]:
    assert number(value) == text, (value, number(value), text)
