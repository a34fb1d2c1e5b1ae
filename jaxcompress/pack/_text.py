# SPDX-License-Identifier: Apache-2.0
"""The manifest as text, and its checksum."""

from __future__ import annotations

import json
import zlib
from typing import Any

VERSION = 1
KEY = "jaxcompress"


def manifest_text(value: Any) -> str:
    """Return JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def manifest_checksum(tree_node: Any, by_path: Any) -> int:
    """Return the checksum of a manifest."""
    # "surrogatepass": a damaged manifest may hold text that cannot be encoded.
    text = manifest_text([tree_node, by_path])
    return zlib.crc32(text.encode(errors="surrogatepass"))
