"""Which pretrained weights can be loaded here: of a package, from the hub's cache, or from the hub. No torch here."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from edgedistill.target.students import load_students
from edgedistill.teacher.bundled import bundled_for

HUB_TIMEOUT_S = 3.0


def at_hand() -> Callable[[str], bool]:
    """Whether the pretrained weights of a student can be loaded here: a package, the hub's cache, or the hub."""
    tags = {s.name: s.pretrained_tag for s in load_students()}

    def known(name: str) -> bool:
        if bundled_for(name) is not None:
            return True
        tag = tags.get(name)
        return tag is not None and (_cached(f"timm/{name}.{tag}") or hub_answers())

    return known


def _cached(repo: str) -> bool:
    """Whether the client of the hub has it; it takes long to import, and is asked only where a folder is there."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or os.path.join(home, "huggingface")
    places = (
        os.environ.get("HF_HUB_CACHE"),
        os.environ.get("HUGGINGFACE_HUB_CACHE"),
        f"{home}/hub",
    )
    folders = [Path(os.path.expandvars(p)).expanduser() for p in places if p]
    if not any((f / f"models--{repo.replace('/', '--')}").is_dir() for f in folders):
        return False
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return False
    return isinstance(try_to_load_from_cache(repo, "model.safetensors"), str)


@cache
def hub_answers() -> bool:
    """Whether the Hugging Face hub (or the mirror that is set) answers within 3 seconds."""
    offline = os.environ.get("HF_HUB_OFFLINE") or os.environ.get("TRANSFORMERS_OFFLINE") or ""
    if offline.upper() in ("1", "ON", "YES", "TRUE") or find_spec("huggingface_hub") is None:
        return False
    import http.client
    import ssl
    import urllib.error
    import urllib.request

    endpoint = os.environ.get("HF_ENDPOINT") or "https://huggingface.co"
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return True
    except urllib.error.URLError as error:  # certificates are the client's own business
        return isinstance(error.reason, ssl.SSLError)
    except (OSError, ValueError, http.client.HTTPException):  # no answer, no address, or no HTTP
        return False
    return True
