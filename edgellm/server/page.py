"""The page at ``/``: one HTML file that may run nothing but itself and ask nobody but us."""

import re
from base64 import b64encode
from functools import cache
from hashlib import sha256
from pathlib import Path

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

PAGE = Path(__file__).with_name("page.html")


async def show_page(_: Request) -> Response:
    """Answer with the page."""
    return page_response()


@cache
def page_response() -> HTMLResponse:
    """Return the page, with a policy that names the hashes of its script and its style."""
    text = PAGE.read_text(encoding="utf-8")
    headers = {
        "Content-Security-Policy": content_policy(text),
        "Cache-Control": "no-cache",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }
    return HTMLResponse(text, headers=headers)


def content_policy(page: str) -> str:
    """Return the Content-Security-Policy of a page with inline scripts and styles.

    Trusted types make even a slip harmless: no text becomes markup in this page.
    """
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {hashes(page, 'script')}",
            f"style-src {hashes(page, 'style')}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def hashes(page: str, element: str) -> str:
    """Return the sources that allow the inline elements of one name, by their SHA-256."""
    inner = re.findall(f"<{element}[^>]*>(.*?)</{element}>", page, re.DOTALL)
    digests = (sha256(text.encode()).digest() for text in inner)
    return " ".join(f"'sha256-{b64encode(digest).decode()}'" for digest in digests)
