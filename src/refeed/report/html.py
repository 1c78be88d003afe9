"""HTML from Python, escaped unless it was built here: the texts that a page shows come out of models and are hostile."""

from __future__ import annotations

import html
import json
from typing import Any

VOID = {"img", "meta", "link", "br"}


class Html(str):
    """A string that is HTML already. Everything else is text and gets escaped."""

    __slots__ = ()


Child = str | int | float | None


def tag(name: str, /, *children: Child, **attributes: str | int | bool | None) -> Html:
    """An element: `tag("p", "a < b", cls="note")` is `<p class="note">a &lt; b</p>`.

    `None` children and attributes are left out, True makes an attribute without value; underscores become hyphens.
    """
    parts = []
    for key, value in attributes.items():
        if value is None or value is False:
            continue
        key = "class" if key == "cls" else key.rstrip("_").replace("_", "-")
        parts.append(f" {key}" if value is True else f' {key}="{html.escape(str(value))}"')
    start = f"<{name}{''.join(parts)}>"
    return Html(start if name in VOID else f"{start}{join(*children)}</{name}>")


def join(*children: Child) -> Html:
    return Html("".join(text(child) for child in children if child is not None))


def text(child: Child) -> str:
    return child if isinstance(child, Html) else html.escape(str(child))


def script_json(value: Any, **attributes: str) -> Html:
    """Data for a script: JSON in which no text can end the element."""
    body = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    for character in "<>&\u2028\u2029":
        body = body.replace(character, f"\\u{ord(character):04x}")
    return tag("script", Html(body), type="application/json", **attributes)


def script(code: str) -> Html:
    """Our own code, inline; the two sequences that would end or confuse the element are broken up."""
    code = code.replace("</script", "<\\/script").replace("<!--", "<\\!--")
    return Html(f"<script>{code}</script>")
